"""The layer of TLS: what a protocol writes goes out in records, and what comes in them goes up.

It is over ``ssl.SSLObject``, which has no socket: the stream below reads and sends, holds back and
resets, as without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from ....child.net.layer import Layer
from ....child.net.stream import HIGH_WATER, Receiver, Transport
from ....child.service import Service
from ....wire.messages import Seen
from ..messages import VOCABULARY, Certificate, Settings
from .context import make_context
from .handshake import Handshake
from .hosts import Hosts
from .reasons import TRUST, broken

_RECORD = 1 << 14  # bytes of plain text, at most, in a record (RFC 8446 5.1)
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # of Linux
_CUT = 1 << 10  # bytes of plain text in a record that is cut on purpose
# OpenSSL's buffers keep the size that they have grown to, for each connection.
_PIECE = 1 << 16  # bytes that are put in one at once

# For what is read: receivers copy what they keep. A stream gives less than this at once, and what
# OpenSSL may have kept is a record.
_buffer = memoryview(bytearray((1 << 18) + (1 << 17)))
# For records that are written together, as a new object for so many bytes costs as much as to
# encrypt them. What is below copies what it keeps.
_records = memoryview(bytearray((1 << 18) + (1 << 14)))


class TLS:
    """TLS for all connections of a service."""

    vocabulary = VOCABULARY

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.bequest = settings.directory
        self._context = make_context(settings, settings.certificate, settings.key)
        self._hosts = Hosts(self._context, settings, service.send) if settings.any_host else None
        if self._hosts is not None:
            service.layer_commands[Certificate] = self._hosts.answered

    def __call__(self, above: Receiver) -> TLSLayer:
        return TLSLayer(above, self)

    def context_for(self, handshake: Handshake, host: str | None) -> ssl.SSLContext | None:
        """The context for ``host``; ``None`` if the handshake has to wait for it."""
        if self._hosts is None or host is None:
            return self._context
        return self._hosts.context_for(handshake, host)

    def forget(self, handshake: Handshake) -> None:
        """The handshake waits no longer."""
        if self._hosts is not None:
            self._hosts.forget(handshake)


class TLSLayer(Layer):
    """TLS on one connection."""

    def __init__(self, above: Receiver, tls: TLS) -> None:
        super().__init__(above)
        self._tls = tls
        self._handshake: Handshake | None = None  # until it is done
        self._session: ssl.SSLObject
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO
        self._seen: Seen | None = None
        self._ended = False  # the client has stopped sending
        self._shut = False  # nothing more is written: close_notify was, or nothing can be
        self._error: ssl.SSLError | None = None  # that the connection has ended with
        self._paused = False  # reading, by what is above
        self._holds_end = False  # until it reads again
        self._silent = True  # neither side has sent anything after the handshake
        self._choked = False  # not reading, as the client does not read what that is answered with

    # Upwards -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.below = transport
        number: int = getattr(self.above, "number", 0)  # protocols have one, layers need not
        self._handshake = Handshake(self._tls, self, transport, number)

    def opened(self, session: ssl.SSLObject, seen: Seen) -> None:
        """The handshake is done: give the connection to what is above, and what has come."""
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        self._session, self._seen = session, seen
        self._incoming, self._outgoing = handshake.incoming, handshake.outgoing
        self.above.connection_made(self)
        size = self._decrypt(0)
        if not size:
            self._acknowledge()
        self._pass_on(size)

    def _acknowledge(self) -> None:
        """Have the kernel acknowledge the end of the handshake now: nothing answers it.

        Until then clients hold back what they send in small parts (Nagle); it would be 40 ms late.
        """
        sock: socket.socket | None = self.below.get_extra_info("socket")
        if _QUICKACK is None or sock is None or sock.family == getattr(socket, "AF_UNIX", None):
            return
        with contextlib.suppress(OSError):  # the client has left: reading reports it
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def data_received(self, data: bytes | memoryview) -> None:
        if self._handshake is not None:
            self._handshake.data_received(data)
        elif not (self._ended or self._error):
            size, write = 0, self._incoming.write
            if len(data) <= _PIECE:
                write(data)
                size = self._decrypt(size)
            else:
                for start in range(0, len(data), _PIECE):
                    write(data[start : start + _PIECE])
                    size = self._decrypt(size)
            self._pass_on(size)

    def _decrypt(self, size: int) -> int:
        """Decrypt what has come, behind ``size`` bytes in the buffer; returns how many it has."""
        incoming = self._incoming
        # typeshed knows only what it returns without a buffer.
        read: Callable[[int, memoryview], int] = self._session.read  # type: ignore[assignment]
        if self._ended or self._error:
            return size
        try:
            while incoming.pending:
                count = read(_RECORD, _buffer[size:] if size else _buffer)
                if not count:
                    self._ended = True
                    break
                size += count
        except ssl.SSLWantReadError:  # a part of a record
            pass
        except ssl.SSLZeroReturnError:  # the client has ended after this side
            self._ended = True
        except ssl.SSLError as error:
            self._error, self._shut = error, True  # OpenSSL writes no more, either
        return size

    def _pass_on(self, size: int) -> None:
        """Give what was decrypted to what is above, in one piece, and then the end."""
        if size:
            self._silent = False
            self.above.data_received(_buffer[:size])
        if self._outgoing.pending:  # OpenSSL has answered by itself
            self._flush()
            self._hold_back()
        if self._error is not None:
            self._fail(self._error)
        elif self._ended:
            self._pass_end_in_turn()

    def _hold_back(self) -> None:
        """Do not read while the client does not read what it is answered, without end."""
        if not self._choked and self.below.get_write_buffer_size() > HIGH_WATER:
            self._choked = True
            self.below.pause_reading()

    def _pass_end_in_turn(self) -> None:
        """Pass the end on, unless what is above does not read: then it may have data to take."""
        if self._paused:
            self._holds_end = True
        elif not self.below.is_closing():
            self._pass_end()

    def _pass_end(self) -> bool:
        keeps = bool(self.above.eof_received())
        if not keeps:
            self.close()
        return keeps

    def _tell_silence(self, how: str) -> None:
        """Tell the test of a client that has left at once: some verify after the handshake."""
        if self._silent and not self._shut and self._tls.service.clients_begin:
            self._silent = False
            self._diagnose(
                f"the client {how} the connection after the TLS handshake and had sent nothing: "
                f"perhaps it does not trust the certificate: {TRUST}"
            )

    def _diagnose(self, text: str) -> None:
        number: int = getattr(self.above, "number", 0)
        self._tls.service.diagnose(self.get_extra_info("peername"), text, number)

    def _fail(self, error: ssl.SSLError) -> None:
        """End the connection, which is broken; the client gets the alert."""
        self._diagnose(broken(error))
        self._shut = True
        self.below.close_lingering()

    def eof_received(self) -> bool:
        if self._handshake is not None:
            return self._handshake.eof_received()
        if self._ended:  # close_notify has said so, and what is above has kept this open
            return True
        self._ended = True
        self._tell_silence("closed")  # without close_notify
        return self._pass_end()

    def pause_writing(self) -> None:
        if self._handshake is None:
            self.above.pause_writing()

    def resume_writing(self) -> None:
        if self._handshake is not None:
            return
        if self._choked:
            self._choked = False
            if not self._paused:
                self.below.resume_reading()
        self.above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshake is not None:
            self._handshake.connection_lost(exc)
        else:
            if exc is not None:
                self._tell_silence("reset")
            self.above.connection_lost(exc or self._error)

    # Downwards -----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "tls":
            return self._seen
        if name == "records":  # for faults, which break them
            return self
        return self.below.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._paused = True
        self.below.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._holds_end:  # it is told as if it came now
            self._holds_end = False
            self._tls.service.iteration.soon(self._pass_end_in_turn)
        if not self._choked:
            self.below.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._shut:
            if self.is_closing():
                return
            raise RuntimeError("write() after write_eof()")
        self._silent = False
        if len(data) <= _RECORD:
            if data:
                self._session.write(data)
                self.below.write(self._outgoing.read())
        else:
            self._write_much(memoryview(data))

    def _write_much(self, data: memoryview) -> None:
        write, read, size = self._session.write, self._outgoing.read, 0
        for start in range(0, len(data), _PIECE):
            write(data[start : start + _PIECE])  # OpenSSL divides it into records
            records = read()
            if size + len(records) > len(_records):
                self.below.write(_records[:size])
                size = 0
            _records[size : size + len(records)] = records
            size += len(records)
        self.below.write(_records[:size])

    def _flush(self) -> None:
        if not self.below.is_closing():
            self.below.write(self._outgoing.read())

    def _shut_down(self) -> None:
        """Write close_notify, or the alert that says what was wrong; nothing comes after it."""
        if not self._shut:
            self._shut = True
            # OpenSSL looks for the client's, too. Nothing of what has come can be lost by that: it
            # was decrypted before what is above got any of it.
            with contextlib.suppress(ssl.SSLError):
                self._session.unwrap()
        self._flush()

    def break_off(self, *, in_record: bool) -> None:
        """Write nothing more, not even close_notify, but half of a record if ``in_record``.

        Whoever calls this ends the connection.
        """
        if in_record and not self._shut:
            self._session.write(bytes(_CUT))
            record = self._outgoing.read()
            self.below.write(record[: len(record) // 2])
        self._shut = True

    def write_eof(self) -> None:
        self._shut_down()
        self.below.write_eof()

    def is_closing(self) -> bool:
        return self._error is not None or self.below.is_closing()

    def close(self) -> None:
        self._shut_down()
        self.below.close()

    def close_lingering(self) -> None:
        self._shut_down()
        self.below.close_lingering()

    def reset_when_sent(self) -> None:
        self._shut = True  # without close_notify: it would look like an orderly end
        self.below.reset_when_sent()


LAYER = TLS
