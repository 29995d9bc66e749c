"""SMTP in the child (RFC 5321), based on aiosmtpd: each mail is one call or one record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from ....child.iteration import Iteration
from ....child.net.listener import wire_address
from ....child.net.stream import Receiver, Transport
from ....child.service import Peer, Service
from ....wire.credit import CALL
from ....wire.frames import TooLarge
from ....wire.messages import Configure, Message, OpenConnection
from .. import rules
from ..messages import VOCABULARY, MailIn, MailReply, SMTPSettings
from ..rules import REFUSALS, Refused
from .content import Content
from .lines import Lines

_SUCCESS = "250 OK"
_TOO_LATE = "451 4.3.0 the handler gave no answer in time"
_FAILED = "451 4.3.0 the handler's answer was lost"
_TOO_LARGE = "552 5.3.4 the mail and its envelope are too large"  # RFC 3463
_STOPPING = "421 4.3.2 the server is stopping"
_TOO_MANY = "421 4.7.0 too many commands were refused"
_SILENT = "421 4.4.2 nothing came for too long"
_IDENT = "Sidestage"
_SMALL = 1 << 16  # bytes of a mail that is taken however much is coming in
_AT_ONCE = 64  # commands of one client, before others have their turn
_UNREAD = 1 << 16  # bytes of commands that nobody reads, before reading pauses


class SMTPService(Service):
    """Listeners whose connections speak SMTP."""

    vocabulary = VOCABULARY
    settings: SMTPSettings
    idle_seconds = 300.0  # RFC 5321 4.5.3.2.7: at least five minutes

    def __init__(self, iteration: Iteration, config: Configure, settings: Any) -> None:
        super().__init__(iteration, config, settings)
        self.unfinished = 0  # bytes of mails that are coming in
        self.unfinished_limit = max(config.keep, 2 * self.settings.size_limit)

    def change(self, handler_timeout: float | None, keep: int) -> None:
        super().change(handler_timeout, keep)
        self.unfinished_limit = max(keep, 2 * self.settings.size_limit)

    def receiver(self) -> Receiver:
        return SMTPConnection(self)

    def read_on(self, peer: Peer) -> None:
        if isinstance(peer, SMTPConnection):
            peer.read_on()

    async def reply_to(self, connection: SMTPConnection, data: bytes) -> str:
        """Send a mail to the parent, or record it; returns the reply to the client."""
        if not self.handled:
            try:
                self.outbox.record(self._mail(0, connection, data))
            except TooLarge as error:
                return self._refuse(connection, error)
            return _SUCCESS
        if self.calls.full and not await self.calls.admits():
            text = f"no handler was free within {self.handler_timeout} s: sent 451"
            self.diagnose(connection.peer, text, connection.number)
            return _TOO_LATE
        call = _Call(self.loop, CALL + len(data))
        connection.call = self.calls.open(call)
        try:
            self.send(self._mail(connection.call, connection, data))
            if self.draining:
                self.began(connection)
            return await call.reply
        except TooLarge as error:
            return self._refuse(connection, error)
        except TimeoutError:
            self.calls.lose(connection.call, reset=False, answered=(451, len(_TOO_LATE)))
            self.diagnose(
                connection.peer,
                f"the handler gave no answer to the mail from "
                f"{connection.envelope_now().mail_from!r} within "
                f"{self.handler_timeout} s: sent 451",
                connection.number,
            )
            return _TOO_LATE
        except asyncio.CancelledError:  # the client has reset the connection
            self.calls.lose(connection.call, reset=True)
            raise
        finally:
            self.calls.close(connection.call)
            connection.call = 0

    def _refuse(self, connection: SMTPConnection, error: TooLarge) -> str:
        self.diagnose(connection.peer, f"sent 552: {error}", connection.number)
        return _TOO_LARGE

    def _mail(self, call: int, connection: SMTPConnection, data: bytes) -> MailIn:
        session, envelope = connection.session_now(), connection.envelope_now()
        return MailIn(
            call=call,
            peer=wire_address(session.peer),
            at=self.loop.time(),
            connection=connection.number,
            helo=session.host_name or "",
            esmtp=bool(session.extended_smtp),
            mail_from=envelope.mail_from or "",
            mail_options=envelope.mail_options,
            rcpt_tos=envelope.rcpt_tos,
            rcpt_options=envelope.rcpt_options,
            data=data,
            tls=connection.stream.get_extra_info("tls"),
        )


class _Call:
    """A mail that waits for its reply; ``reply`` raises TimeoutError if there is none in time."""

    due: float | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.size = size
        self.reply: asyncio.Future[str] = loop.create_future()

    def command(self, message: Message) -> None:
        reply = message.reply if isinstance(message, MailReply) else _FAILED
        if not self.reply.done():
            self.due = None
            self.reply.set_result(reply)

    def timed_out(self) -> None:
        if not self.reply.done():
            self.reply.set_exception(TimeoutError())


class SMTPConnection(SMTP):
    """A client's connection, as aiosmtpd serves it.

    aiosmtpd has the session, the envelope and the commands that are not here. It takes a client
    that has stopped sending for gone, and LF for a line end; its parser of addresses rewrites
    them, and raises what nobody catches. So reading, MAIL, RCPT and DATA are here, and ``rules``
    says what is refused.
    """

    stream: Transport

    def __init__(self, service: SMTPService) -> None:
        super().__init__(
            None,
            data_size_limit=service.settings.size_limit,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident=_IDENT,
            timeout=service.idle_seconds,
            loop=service.loop,
        )
        self.service = service
        self.peer: object = ""
        self.number = service.next_connection()
        self.call = 0
        self._lines = Lines()
        self._content: Content | None = None  # of the mail that is coming in
        self._waiter: asyncio.Future[None] | None = None  # for more from the client
        self._held = False  # not reading, because what has come is not read
        self._ended = False  # the client has stopped sending
        self._over = False  # the session ends with the reply to this command
        self._sent_away = False  # by the server, whatever the client still sends
        self._heard = 0.0  # when the client has sent something, on the loop's clock
        self._mails = 0  # that were answered
        self._refusals = 0  # since the last mail
        self._told_line_ends = False
        self._left_out = 0  # recipients of this mail that were one too many
        self._silence: asyncio.Task[None] | None = None  # ends a session in which nothing comes

    # The transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.stream = transport
        self.peer = wire_address(transport.get_extra_info("peername"))
        self._heard = self.loop.time()
        self.service.joined(self)
        super().connection_made(transport)

    def data_received(self, data: bytes | memoryview) -> None:
        self._heard = self.loop.time()
        content = self._content
        if content is None:
            self._lines.feed(data)
            if len(self._lines) > _UNREAD and not self._held:
                self._held = True
                self.stream.pause_reading()
        else:
            self._take_content(content, bytes(data))
            if not content.ended:
                return
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self.service.half_closed(self)
        self._wake()
        return True  # half-open: everything that the client has sent is answered

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._tell_end("reset the connection")
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(error)
        self.service.left(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        """Wait until the client has sent more or has ended, or the server stops."""
        self._waiter = self.loop.create_future()
        if self._held and len(self._lines) <= _UNREAD:
            self._held = False
            self.stream.resume_reading()
            self.service.iteration.progress.set()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # The session -------------------------------------------------------------------------------

    async def _handle_client(self) -> None:
        """Serve the client; a defect ends its connection, and is logged."""
        try:
            await self._talk()
        except ConnectionResetError:  # ``connection_lost`` tells of it
            pass
        except Exception as error:  # noqa: BLE001 - reported by the loop's exception handler
            context = {"message": "serving a client has failed", "exception": error}
            self.loop.call_exception_handler(context)
            self.stream.abort()

    async def _talk(self) -> None:
        """Serve one command after another, until the client or the server ends the session."""
        await self.push(f"220 {self.hostname} {self.__ident__}")
        served = 0
        while (line := await self._next_line()) is not None:
            try:
                await self._serve(line)
            except Refused as refused:
                await self._refuse(refused, rules.quoted(line.rstrip(b"\r\n")))
                await self._count_refusal()
            served += 1
            if not served % _AT_ONCE:  # others wait, and so do the replies
                self.service.iteration.soon(self._wake)
                await self._more()
        if self._sent_away or self.stream.has_unread():
            self.stream.close_lingering()
        else:
            self.stream.close()

    async def _next_line(self) -> bytes | None:
        """The next line of the client; ``None`` once the session is to end."""
        while not self._over:
            if (line := self._lines.next()) is not None:
                return line
            if self._ended:
                self._tell_end("closed")
            elif self.service.draining:
                self._over = True
                await self.push(_STOPPING)
            else:
                await self._more()
        return None

    async def _serve(self, line: bytes) -> None:
        session, envelope = self.session_now(), self.envelope_now()
        command = rules.command(line, extended=session.extended_smtp)
        if not line.endswith(b"\r\n") and not self._told_line_ends:
            self._told_line_ends = True
            self._diagnose(f"{rules.quoted(line)} ends with LF, not CRLF (RFC 5321 2.3.8)")
        rules.check_order(
            command.verb,
            greeted=bool(session.host_name),
            sender=envelope.mail_from is not None,
            recipients=bool(envelope.rcpt_tos),
        )
        await self._smtp_methods[command.verb](command.argument)

    async def _refuse(self, refused: Refused, what: str) -> None:
        """Reply to ``what``, which a rule refuses, and tell the test."""
        self._diagnose(f"sent {refused.reply}: {what}")
        self._over = self._sent_away = refused.last
        await self.push(refused.reply)

    async def _count_refusal(self) -> None:
        """End the session of a client that says nothing but what is refused."""
        self._refusals += 1
        if self._refusals >= REFUSALS and not self._over:
            self._over = self._sent_away = True
            self._diagnose(f"sent {_TOO_MANY}: {REFUSALS} without a mail between them")
            await self.push(_TOO_MANY)

    def session_now(self) -> Session:
        """The session, which aiosmtpd sets once there is a connection."""
        assert self.session is not None
        return self.session

    def envelope_now(self) -> Envelope:
        """The envelope of the next mail, which aiosmtpd sets with the session."""
        assert self.envelope is not None
        return self.envelope

    # Commands; the names are aiosmtpd's --------------------------------------------------------

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        sender = rules.sender(
            arg or "",
            extended=self.session_now().extended_smtp,
            size_limit=self.service.settings.size_limit,
        )
        envelope = self.envelope_now()
        envelope.mail_from, envelope.smtp_utf8 = sender.address, sender.utf8
        envelope.mail_options = list(sender.parameters)
        self._left_out = 0
        await self.push(_SUCCESS)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        envelope = self.envelope_now()
        extended = self.session_now().extended_smtp
        address = rules.recipient(arg or "", extended=extended, utf8=envelope.smtp_utf8)
        limit = self.service.settings.recipient_limit
        if len(envelope.rcpt_tos) < limit:
            envelope.rcpt_tos.append(address)
            await self.push(_SUCCESS)
        else:  # not an error of the client's, which may send another mail to them
            reply = rules.too_many_recipients(limit)
            if not self._left_out:
                self._diagnose(f"sent {reply}: {address!r:.80}, and what follows it")
            self._left_out += 1
            await self.push(reply)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        if (content := await self._read_content()) is None:
            return
        sender = self.envelope_now().mail_from
        try:
            reply = await self.service.reply_to(self, content.whole())
        except Refused as refused:
            self._end_mail()
            await self._refuse(refused, f"the mail from {sender!r}")
        else:
            self._end_mail()
            await self.push(reply)

    def _end_mail(self) -> None:
        self.envelope = Envelope()
        self._mails += 1
        self._refusals = 0
        self._heard = self.loop.time()

    async def _read_content(self) -> Content | None:
        """Read a mail to its end; returns ``None`` if the client ends before."""
        content = self._content = Content(self.service.settings.size_limit)
        self.service.unfinished += content.held
        try:
            self._take_content(content, self._lines.take())
            while not (content.ended or self._ended):
                await self._more()
            return content if content.ended else None
        finally:
            self.service.unfinished -= content.held

    def _take_content(self, content: Content, data: bytes) -> None:
        """Take a piece of a mail, and what may follow it."""
        service = self.service
        before = content.held
        rest = content.feed(data)
        service.unfinished += content.held - before
        if service.unfinished > service.unfinished_limit and content.held > _SMALL:
            before = content.held
            content.refuse(rules.too_much_at_once())
            service.unfinished += content.held - before
        if content.ended:
            self._content = None
            self._lines.feed(rest)

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: N802
        await self.push(rules.help_on(arg or ""))

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        await self.push("252 2.5.2 not verified, but mail to it is taken")  # RFC 5321 3.5.3

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        self._over = True
        await self.push("221 Bye")

    # How a session ends ------------------------------------------------------------------------

    def _diagnose(self, text: str) -> None:
        self.service.diagnose(self.peer, text, self.number)

    def _tell_end(self, how: str) -> None:
        """Tell the test where a client has broken off, unless it had sent all of a mail."""
        if not self._over and (stage := self._stage()):
            self._diagnose(f"the client {how} {stage}")
        self._over = True

    def _stage(self) -> str:
        """How far the client has got with a mail; empty if nothing is missing."""
        envelope, session = self.envelope_now(), self.session_now()
        if self.call:
            return "before the reply to its mail"
        if self._content is not None:
            return f"in DATA after {self._content.size:,} bytes"
        if len(self._lines):
            line, end, _ = self._lines.beginning().partition(b"\n")
            what = rules.quoted(line.rstrip(b"\r"))
            return f"before the reply to {what}" if end else f"in the middle of the command {what}"
        if envelope.rcpt_tos:
            return "after RCPT TO, without DATA"
        if envelope.mail_from is not None:
            return "after MAIL FROM, without RCPT TO"
        if session.host_name and not self._mails:
            return f"after {'EHLO' if session.extended_smtp else 'HELO'}, without a mail"
        return ""

    def _timeout_cb(self) -> None:
        """End the session if the client is silent, and it is its turn."""
        left = self._heard + self.service.idle_seconds - self.loop.time()
        if self.call:
            left = self.service.idle_seconds
        if left > 0:
            self._reset_timeout(left)
        else:
            self._silence = self.loop.create_task(self._end_silence())

    async def _end_silence(self) -> None:
        heard = self._heard
        if await self.service.calls.postpones() or self._heard != heard:
            self._reset_timeout()
            return
        stage = f", {stage}" if (stage := self._stage()) else ""
        self._diagnose(f"sent {_SILENT}: {self.service.idle_seconds:g} s{stage}")
        self._over = True
        if self.stream.get_write_buffer_size():  # it does not read either
            self.stream.abort()
        else:
            self.stream.write(_SILENT.encode() + b"\r\n")
            self.stream.close_lingering()

    # For the drain -----------------------------------------------------------------------------

    def call_ids(self) -> Iterable[int]:
        return (self.call,) if self.call else ()

    def describe(self) -> OpenConnection:
        state = "handler running" if self.call else self._stage() or "idle"
        return OpenConnection(wire_address(self.peer), state, self.call, self.number)

    def is_behind(self) -> bool:
        """Whether the client has sent more that is read once this has served what was read."""
        return self._held and self.stream.has_unread()

    def read_on(self) -> None:
        """Read more than is wanted, up to the next limit."""
        if self._held:
            self._held = False
            self.stream.resume_reading()

    def close_if_idle(self) -> None:
        if self._content is None:
            self._wake()  # ``_next_line`` closes, unless there is a line

    def give_up(self) -> None:
        self._tell_end("closed")
        self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.stream.abort()


SERVICE = SMTPService
