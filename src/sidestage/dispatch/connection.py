"""A client's connection, which handlers use like a socket: of a TCP server, or an HTTP tunnel."""

from __future__ import annotations

import errno
import io
import os
import socket
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from ..errors import StateError, shown
from ..journal.facts import Address
from ..pristine.waits import Deadline
from ..wire.messages import End, Message, SetOption
from ..wire.values import buffer, c_int, integer, seconds
from .streams import Inflow, Outflow, StreamReader, StreamWriter, open_file

if TYPE_CHECKING:
    from ..journal.secured import TLSDetails

_NEVER = Deadline(None)
Break: TypeAlias = Literal["", "in_record", "without_notify"]  # how TLS ends, if not as it should


class ConnectedCall(Protocol):
    """The call that a connection belongs to."""

    id: int
    client_address: Address

    @property
    def inflow(self) -> Inflow:
        """What comes from the client."""
        ...

    @property
    def outflow(self) -> Outflow:
        """What goes to the client."""
        ...

    def send(self, message: Message, /) -> None:
        """Send a command of this call; raises ServerStopped."""

    def close(self, *, reset: bool, breaks: Break = "") -> None:
        """Close the connection for the handler, with a reset (RST) if ``reset``.

        ``breaks`` is how TLS ends, if it is to end as it must not.
        """


class Connection:
    """A client's connection, served by one call of the handler.

    Its methods are those of a socket. The server's process has the real socket and relays the
    bytes, so there is no ``fileno()`` for ``select``. Reading from a client that has left returns
    what it had sent and then ``b""``, or raises ConnectionResetError if it reset the connection.
    When the server stops, I/O that would block raises ServerStopped. After ``close`` or ``reset``,
    all I/O raises OSError (EBADF), also that which another thread is blocked in.
    """

    def __init__(
        self, call: ConnectedCall, server_address: Address, tls: TLSDetails | None = None
    ) -> None:
        self._call = call
        self._server_address = server_address
        self._timeout: float | None = None
        self._closed = False
        self._sent_end = False
        self._rfile: io.BufferedReader | None = None
        self.client_address = call.client_address
        self.tls = tls  # what was agreed with the client; None without TLS

    @property
    def connection(self) -> Connection:
        """This object: handlers for ``socketserver`` use ``request.connection.recv``."""
        return self

    @property
    def rfile(self) -> io.BufferedReader:
        """A buffered binary file that reads from the client."""
        if self._rfile is None:
            self._rfile = io.BufferedReader(StreamReader(self.recv))
        return self._rfile

    @property
    def wfile(self) -> StreamWriter:
        """A binary file that writes to the client, unbuffered."""
        return StreamWriter(self.sendall)

    # Reading -----------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to ``bufsize`` bytes, at least one; ``b""`` once the client stops sending.

        ``flags`` may be 0, ``MSG_PEEK`` or ``MSG_WAITALL``. Raises TimeoutError after the
        time set by ``settimeout``.
        """
        if type(bufsize) is not int or bufsize < 0:
            bufsize = _size(bufsize)
        timeout = self._timeout
        if not flags and type(flags) is int:  # as mostly
            return self._read_some(bufsize, _NEVER if timeout is None else Deadline(timeout))
        if flags not in (0, socket.MSG_PEEK, socket.MSG_WAITALL):
            raise ValueError(f"flags may be 0, MSG_PEEK or MSG_WAITALL, not {shown(flags)}")
        if flags != socket.MSG_WAITALL:
            return self._read_some(bufsize, Deadline(timeout), peek=flags == socket.MSG_PEEK)
        parts: list[bytes] = []
        self._read(bufsize, parts)
        return b"".join(parts)

    def recv_exactly(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes.

        Raises EOFError if the client stops sending before that, and TimeoutError after the time
        set by ``settimeout``; both messages quote the bytes that came.
        """
        size = _size(size)
        parts: list[bytes] = []
        try:
            self._read(size, parts)
        except TimeoutError:
            raise TimeoutError(f"timed out after {_came(parts, size)}") from None
        data = b"".join(parts)
        if len(data) < size:
            raise EOFError(f"the client closed after {_came(parts, size)}")
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer``; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        nbytes = _size(nbytes)
        if view.readonly:  # to be seen before anything is taken from the client
            raise TypeError(f"the buffer must be writable: {shown(buffer)}")
        if nbytes > len(view):
            raise ValueError(f"the buffer has {len(view)} bytes, not {shown(nbytes)}")
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def _read(self, size: int, parts: list[bytes]) -> None:
        """Receive ``size`` bytes into ``parts``, fewer at the end; an error keeps what came."""
        deadline = Deadline(self._timeout)
        while data := self._read_some(size, deadline):
            parts.append(data)
            size -= len(data)

    def _read_some(self, size: int, deadline: Deadline, *, peek: bool = False) -> bytes:
        if self._closed:
            raise _closed()
        if size == 0:
            return b""
        try:
            return self._call.inflow.read_some(size, deadline, peek=peek)
        except TimeoutError:
            raise self._not_in_time() from None

    def _not_in_time(self) -> OSError:
        if self._timeout == 0:  # as a socket in non-blocking mode
            return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return TimeoutError("timed out")

    # Writing -----------------------------------------------------------------------------------

    @property
    def _sent(self) -> int:
        """How many bytes were sent so far."""
        return self._call.outflow.sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of ``data``; blocks while the client does not read.

        Raises TimeoutError after the time set by ``settimeout``, BrokenPipeError after
        ``shutdown``, and ConnectionError if the client has left.
        """
        if self._closed:
            raise _closed()
        if self._sent_end:
            raise _shut_down()
        timeout = self._timeout
        try:
            self._call.outflow.write(data, _NEVER if timeout is None else Deadline(timeout))
        except TimeoutError:
            raise self._not_in_time() from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send ``data``; returns its size in bytes."""
        view = buffer("what is sent", data)
        self.sendall(view, flags)
        return len(view)

    # The socket's other methods ----------------------------------------------------------------

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file over this connection, like ``socket.makefile``."""
        return open_file(self.recv, self.sendall, mode, buffering, encoding, errors, newline)

    def settimeout(self, timeout: float | None) -> None:
        """Set the time-out in seconds for blocking calls; ``None`` is none, 0 does not block."""
        self._timeout = None if timeout is None else seconds("timeout", timeout)

    def gettimeout(self) -> float | None:
        """Return the time-out in seconds, or ``None``."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Same as ``settimeout(None)`` if ``flag``, else ``settimeout(0)``."""
        self._timeout = None if flag else 0.0

    def setsockopt(self, level: int, optname: int, value: Any) -> None:
        """Set an option of the real socket; a failure appears in ``server.diagnostics``.

        ``value`` is an int or a bytes-like object. Raises TypeError for anything else, and
        OverflowError for an int of more than 32 bits.
        """
        self._check_open()
        option = SetOption(
            call=self._call.id,
            level=c_int("level", level),
            name=c_int("optname", optname),
            value=_option_value(value),
        )
        self._call.send(option)

    def getpeername(self) -> Address:
        """Return the client's address."""
        return self.client_address

    def getsockname(self) -> Address:
        """Return the address that the client connected to."""
        return self._server_address

    def shutdown(self, how: int) -> None:
        """Stop sending (``SHUT_WR``), receiving (``SHUT_RD``), or both (``SHUT_RDWR``).

        Wakes other threads: ``recv`` returns what has come and then ``b""``, ``sendall`` raises
        BrokenPipeError.
        """
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise ValueError(f"how must be SHUT_RD, SHUT_WR or SHUT_RDWR, not {shown(how)}")
        self._check_open()
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self._call.inflow.end()
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self.shutdown_write()

    def shutdown_write(self) -> None:
        """Send an end-of-file; the client can still send (a half-close)."""
        self._check_open()
        if not self._sent_end:
            self._sent_end = True
            self._call.outflow.fail(_shut_down())
            self._call.send(End(call=self._call.id))

    def close(self) -> None:
        """Close once everything that was sent has gone out; may be called twice.

        Other threads that are blocked in it get OSError (EBADF).
        """
        self._end(reset=False)

    def reset(self) -> None:
        """Drop the connection with a reset (RST): the client gets ConnectionResetError."""
        self._end(reset=True)

    def reset_in_record(self) -> None:
        """Send half of a TLS record and drop the connection with a reset (RST).

        What was sent before goes out first, in whole records. Raises StateError without TLS, and
        BrokenPipeError after ``shutdown_write``, which has sent close_notify.
        """
        self._break("reset_in_record", "in_record", reset=True)

    def close_in_record(self) -> None:
        """Send half of a TLS record and close the connection (FIN), without close_notify.

        All else is as for ``reset_in_record``.
        """
        self._break("close_in_record", "in_record", reset=False)

    def close_without_notify(self) -> None:
        """Close the connection (FIN) without TLS's close_notify: anybody could have cut it there.

        All else is as for ``reset_in_record``.
        """
        self._break("close_without_notify", "without_notify", reset=False)

    def _break(self, name: str, breaks: Break, *, reset: bool) -> None:
        if self.tls is None:
            raise StateError(
                f"connection.{name}() is about TLS, which this connection does not speak: make "
                "the server with tls=True, or use connection.reset() or connection.close()"
            )
        if self._sent_end and not self._closed:
            raise _shut_down()
        self._end(reset=reset, breaks=breaks)

    def _end(self, *, reset: bool, breaks: Break = "") -> None:
        if not self._closed:
            self._closed = True
            try:
                self._call.close(reset=reset, breaks=breaks)
            finally:
                self._wake()

    def _wake(self) -> None:
        """Have whoever is blocked in it, and whoever comes, get the error of a closed connection.

        What has come, and was not read, can still be read by those who wait for it.
        """
        self._closed = True
        self._call.inflow.fail(_closed())
        self._call.outflow.fail(_closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def __repr__(self) -> str:
        return f"<Connection from {self.client_address}{' closed' if self._closed else ''}>"


def _closed() -> OSError:
    return OSError(errno.EBADF, "the handler has closed this connection")


def _shut_down() -> OSError:
    return BrokenPipeError(errno.EPIPE, "the handler has shut this direction down")


def _size(value: Any) -> int:
    size = integer("the number of bytes", value)
    if size < 0:
        raise ValueError(f"the number of bytes must be at least 0, not {shown(size)}")
    return size


def _option_value(value: Any) -> int | bytes:
    try:
        number = integer("value", value)
    except TypeError:
        return bytes(buffer("value", value))
    return c_int("value", number)


def _came(parts: list[bytes], size: int) -> str:
    data = b"".join(parts)
    return f"{len(data)} of {size} bytes: {data[:200]!r}"
