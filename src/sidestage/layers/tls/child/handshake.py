"""The handshake of one connection: from its first byte until the protocol gets it.

Nothing is made for a client before its whole ClientHello has come, so clients that never send one
cost little. While it lasts, the service counts the handshake as a connection, to be described and
closed like others.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ....child.net.listener import wire_address
from ....child.net.stream import Transport
from ....wire.messages import OpenConnection, Seen
from .hello import BadHello, Greeting, Hello, NotTLS
from .reasons import TRUST, asked, why

if TYPE_CHECKING:
    from .layer import TLS, TLSLayer

_FATAL = b"\x15\x03\x03\x00\x02\x02"  # the record of a fatal alert, without its number
_HANDSHAKE_FAILURE, _UNRECOGNIZED_NAME = 40, 112  # RFC 8446 6.2
_LOOK = 1.0  # seconds; who only looks if a port is open does not stay that long
_SPEAKS_FIRST = (
    "a client of TLS speaks first: perhaps it waits for the server, as clients without TLS do "
    "with some protocols"
)
_QUOTED = 60  # bytes of what came in place of a ClientHello


class Handshake:
    """What there is of a connection until its handshake is done."""

    def __init__(self, tls: TLS, layer: TLSLayer, below: Transport, number: int) -> None:
        self._tls = tls
        self._layer = layer
        self._below = below
        self._number = number
        self.waits_for = ""  # the host whose certificate is on the way
        self._peer = wire_address(below.get_extra_info("peername"))
        self._greeting: Greeting | None = Greeting()  # until a session has what came
        self._hello: Hello | None = None
        self._session: ssl.SSLObject | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._over = False  # it goes no further: what comes is dropped
        self._stage = "connected, has sent nothing yet"
        self._began = tls.service.loop.time()
        self._timer = tls.service.loop.call_later(tls.settings.seconds, self._too_late)
        tls.service.joined(self)

    # From the stream -----------------------------------------------------------------------------

    def data_received(self, data: bytes | memoryview) -> None:
        """Go on as far as ``data`` leads."""
        if self._over:
            return
        if self._session is not None:
            self.incoming.write(data)
            self._advance(self._session)
        elif self._greeting is not None:
            self._stage = "has sent a part of its ClientHello"
            if self._hello is None:
                self._greet(self._greeting, data)
            else:  # its certificate is on the way
                self._greeting.taken += data

    def eof_received(self) -> bool:
        """The client has left: there is nothing to say to it."""
        self._tell_end("closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if exc is not None:
            self._tell_end("reset the connection")
        self._timer.cancel()
        self._tls.forget(self)
        self._tls.service.left(self)

    def _tell_end(self, how: str) -> None:
        """Tell the test that the client has left, unless it has only looked if a port is open."""
        silent = self._greeting is not None and not self._greeting.taken
        looks = silent and self._tls.service.loop.time() - self._began < _LOOK
        if self._over or looks:
            return
        self._over = True
        if silent:
            self._tell(f"a client {how} and had sent nothing, and {_SPEAKS_FIRST}")
        elif self._session is None:
            self._tell(f"the client {how} in the middle of its ClientHello")
        else:
            self._tell(
                f"the client {how} in the TLS handshake, after it got the "
                f"certificate: perhaps it does not trust it: {TRUST}"
            )

    # Steps ---------------------------------------------------------------------------------------

    def _greet(self, greeting: Greeting, data: bytes | memoryview) -> None:
        try:
            hello = greeting.feed(data)
        except NotTLS:
            self._refuse_plain(bytes(greeting.taken[:_QUOTED]))
            return
        except BadHello as error:
            text = f"the client is refused: {error}"
            if error.alert is None:
                self._end(text)
            else:
                self._fail(text, error.alert)
            return
        if hello is None:
            return
        self._hello = hello
        self._stage = f"in the TLS handshake with a client {asked(hello)}"
        if self._tls.settings.handshake != "normal":
            self._misbehave(self._tls.settings.handshake, asked(hello))
        elif (context := self._tls.context_for(self, hello.sni)) is not None:
            self.begin(context)
        else:
            self._stage = f"waits for a certificate for {hello.sni!r}"
            self._below.pause_reading()

    def _misbehave(self, how: str, who: str) -> None:
        if how == "fails":
            text = f"failed the TLS handshake on purpose with a client {who}"
            self._fail(text, _HANDSHAKE_FAILURE)
        elif how == "cut":
            self._end(f"cut the TLS handshake on purpose with a client {who}")
        else:
            self._over = True
            self._timer.cancel()
            self._stage = "stalled on purpose in the TLS handshake"
            self._tell(f"stalled the TLS handshake on purpose with a client {who}")

    def begin(self, context: ssl.SSLContext) -> None:
        """Begin with the certificate in ``context``."""
        greeting, self._greeting = self._greeting, None
        assert greeting is not None
        self.incoming.write(greeting.taken)
        self._session = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self._advance(self._session)

    def go_on(self, context: ssl.SSLContext | str) -> None:
        """The answer has come for which this waits: a context, or why there is none."""
        if self._over or self._below.is_closing():
            return
        if isinstance(context, str):
            text = f"there is no certificate for a client {self._asked()}: {context}"
            self._fail(text, _UNRECOGNIZED_NAME)
        else:
            self._below.resume_reading()
            self.begin(context)

    def _asked(self) -> str:
        return "" if self._hello is None else asked(self._hello)

    def _advance(self, session: ssl.SSLObject) -> None:
        hello = self._hello
        assert hello is not None
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            self._below.write(self.outgoing.read())
            return
        except ssl.SSLError as error:
            reason = why(error, hello, self._tls.settings)
            text = f"the TLS handshake failed with a client {asked(hello)}: {reason}"
            self._end(text, self.outgoing.read())
            return
        self._timer.cancel()
        cipher = session.cipher()
        seen = Seen(
            version=session.version() or "",
            cipher=cipher[0] if cipher else "",
            sni=hello.sni,
            alpn=session.selected_alpn_protocol(),
            client_certificate=session.getpeercert(binary_form=True),
        )
        try:
            self._layer.opened(session, seen)
        finally:  # its protocol is a connection of the service now, or has failed
            self._tls.service.left(self)

    # How it ends ---------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        self._tls.service.diagnose(self._peer, text, self._number)

    def _fail(self, text: str, alert: int) -> None:
        self._end(text, _FATAL + bytes((alert,)))

    def _end(self, text: str, last: bytes = b"") -> None:
        """Tell the test why, then the client, and close the connection."""
        self._over = True
        self._timer.cancel()
        self._stage = "closing"
        self._tell(text)
        self._tls.service.outbox.flush()  # the test knows before the client does
        self._below.write(last)
        self._below.close_lingering()

    def _refuse_plain(self, first: bytes) -> None:
        text = (
            f"a client spoke to this server without TLS, beginning with {first!r}: "
            "have it connect with TLS, as server.url says"
        )
        self._end(text, self._tls.service.plain_refusal(self._below.get_extra_info("sockname")))

    def _too_late(self) -> None:
        seconds = f"{self._tls.settings.seconds:g} s"
        if self._greeting is not None and not self._greeting.taken:
            self._end(f"a client sent nothing within {seconds}, and {_SPEAKS_FIRST}")
        elif self._session is not None:
            text = f"the TLS handshake was not over within {seconds} with a client {self._asked()}"
            self._end(f"{text}: it has not answered the certificate")
        else:
            self._end(f"the TLS handshake was not over within {seconds}: the client {self._stage}")

    # For the drain -------------------------------------------------------------------------------

    def describe(self) -> OpenConnection:
        return OpenConnection(self._peer, self._stage, 0, self._number)

    def call_ids(self) -> Iterable[int]:
        return ()

    def is_behind(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        self._over = True
        self._below.close()

    def abort(self) -> None:
        self._over = True
        self._below.abort()
