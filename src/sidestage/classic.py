"""The servers of the 2011 proposal, with the names and signatures of CPython's ``test_logging``.

A handler gets the same arguments as there: the request handler object of ``socketserver`` or
``http.server``, or the four arguments of an SMTP message. Those classes run in the test's
process, over a connection that the server's process relays. You may replace
``RequestHandlerClass`` by a subclass before ``start``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from typing import TYPE_CHECKING, Any

from .dispatch.refused import Refused
from .dispatch.slot import Slot
from .errors import ServerStopped, StateError, shown
from .journal.facts import Diagnostic
from .protocols.smtp.server import SMTPServer
from .protocols.tcp.server import TCPServer
from .protocols.udp.server import UDPServer
from .server.address import Listen, parse
from .server.checks import handler_or_none
from .server.server import KEEP, Server
from .wire.values import buffer

if TYPE_CHECKING:
    import ssl

    from .dispatch.connection import Connection
    from .protocols.smtp.mail import Mail
    from .protocols.udp.datagram import Datagram

__all__ = [
    "TestHTTPServer",
    "TestSMTPServer",
    "TestTCPServer",
    "TestUDPServer",
    "TestUnixDatagramServer",
    "TestUnixStreamServer",
]


class _ClassicSlot(Slot):
    """Calls the handler through a method of the server, with a weak reference to the server."""

    def __init__(self, server: _Classic, handler: Callable[..., Any] | None) -> None:
        super().__init__(handler)
        self._server = weakref.ref(server)

    def run_handler(self, request: Any, instead: Callable[..., Any] | None = None) -> Any:
        __tracebackhide__ = True
        server = self._server()
        if server is None:
            raise ServerStopped("this belongs to a server that was never stopped")
        return server._handle(request)

    def source(self, handler: Callable[..., Any] | None) -> Callable[..., Any] | None:
        server = self._server()
        return handler if server is None else server._overridden() or handler


class _Classic(Server[Any]):
    """What these servers have in common with ``socketserver``."""

    __test__ = False
    address_family: int = socket.AF_INET
    RequestHandlerClass: type[BaseRequestHandler]
    _check_handler = staticmethod(handler_or_none)  # that of a mail gets four arguments

    if not TYPE_CHECKING:  # else every name would be right

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "tls" and value is not None and value is not False:
                raise AttributeError(self._no_tls("tls cannot be set"), name=name, obj=self)
            super().__setattr__(name, value)

    def _no_tls(self, what: str) -> str:
        return (
            f"{what}: of the classic servers only TestHTTPServer speaks TLS, with "
            f"TestHTTPServer(..., sslctx=context); the option tls is for HTTPServer, TCPServer "
            "and SMTPServer"
        )

    def _speaks_tls(self, what: str) -> Any:
        raise StateError(self._no_tls(f"{what} is not there"))

    def begin_start(self, loop: Any = None) -> None:
        if self.address_family == getattr(socket, "AF_INET6", None):
            host = {"localhost": "::1", "": "::"}.get(self._listen.host or "", self._listen.host)
            self._listen = Listen(host, self._listen.port, self._listen.path)
        super().begin_start(loop)

    def _parse(self, address: Any) -> Listen:
        is_path = self.address_family == getattr(socket, "AF_UNIX", None)
        return parse(os.fsencode(address) if is_path and isinstance(address, str) else address)

    def _make_slot(self, handler: Callable[..., Any] | None) -> Slot:
        return _ClassicSlot(self, handler)

    def _handle(self, request: Any) -> Any:
        """Call the handler as ``test_logging`` does."""
        raise AssertionError("each has its own")

    def _overridden(self) -> Callable[..., Any] | None:
        """The user's own method that is called in place of the handler, if there is one."""
        return None

    def delegate(self, request: Any) -> Any:
        """Call the handler with the request handler object; returns its result.

        Raises TypeError if the handler is a coroutine function.
        """
        handler = self._slot.handler
        assert handler is not None
        result = handler(request)
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError(
                "a classic handler is called from socketserver's classes, which await nothing: "
                f"{handler!r} must not be async"
            )
        return result

    def server_bind(self) -> None:
        """Do nothing: the server's process binds at ``start``."""

    def server_activate(self) -> None:
        """Do nothing: the server's process listens at ``start``."""

    def server_close(self) -> None:
        """Stop the server."""
        self.stop()


class TestTCPServer(_Classic, TCPServer):
    """``TestTCPServer(addr, handler, poll_interval, bind_and_activate)``.

    The handler gets a ``StreamRequestHandler``: ``request.connection``, ``rfile``, ``wfile``.
    ``bind_and_activate`` is accepted and makes no difference: binding is part of ``start``.
    """

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        addr: Any,
        handler: Callable[[Any], Any],
        poll_interval: float = 0.5,
        bind_and_activate: bool = True,
        *,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(
            addr,
            handler,
            poll_interval,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )

        class DelegatingTCPRequestHandler(StreamRequestHandler):
            def handle(self) -> None:
                self.server.delegate(self)  # type: ignore[attr-defined]  # our server

        self.RequestHandlerClass = DelegatingTCPRequestHandler

    def _handle(self, request: Connection) -> None:
        self.RequestHandlerClass(request, request.client_address, self)  # type: ignore[arg-type]  # socket-like


class TestUDPServer(_Classic, UDPServer):
    """``TestUDPServer(addr, handler, poll_interval, bind_and_activate)``.

    The handler gets a ``DatagramRequestHandler``: ``request.packet``, ``rfile``, ``wfile``.
    """

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        addr: Any,
        handler: Callable[[Any], Any],
        poll_interval: float = 0.5,
        bind_and_activate: bool = True,
        *,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(
            addr,
            handler,
            poll_interval,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )

        class DelegatingUDPRequestHandler(DatagramRequestHandler):
            def handle(self) -> None:
                self.server.delegate(self)  # type: ignore[attr-defined]  # our server

            def finish(self) -> None:
                if self.wfile.getvalue():  # type: ignore[attr-defined]  # a BytesIO
                    super().finish()

        self.RequestHandlerClass = DelegatingUDPRequestHandler

    def _handle(self, request: Datagram) -> None:
        pair = (request.packet, _ReplySocket(request))
        self.RequestHandlerClass(pair, request.client_address, self)  # type: ignore[arg-type]  # as there


class _ReplySocket:
    """The server's socket, as far as a datagram handler uses it."""

    def __init__(self, datagram: Datagram) -> None:
        self._datagram = datagram

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """Reply to the sender: ``sendto(data[, flags], address)``. Returns the size in bytes.

        Raises ValueError for any other address.
        """
        address = flags_and_address[-1] if flags_and_address else ()
        if isinstance(address, (bytes, os.PathLike)):
            address = os.fsdecode(address)
        if not isinstance(address, str):
            address = tuple(address)
        if address != self._datagram.client_address:
            raise ValueError(f"a reply can only go to {self._datagram.client_address!r}")
        view = buffer("a datagram", data)
        self._datagram.reply(view)
        return len(view)


class TestHTTPServer(_Classic, TCPServer):
    """``TestHTTPServer(addr, handler, poll_interval, log, sslctx)``.

    The handler gets a ``BaseHTTPRequestHandler`` for every method. With ``log`` it writes its log
    lines to stderr. With ``sslctx`` the server speaks HTTPS. Any SSLContext works, but it cannot
    be sent to another process: TLS is terminated in the test's process, in the handler's thread,
    so a busy handler delays handshakes.
    """

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        addr: Any,
        handler: Callable[[Any], Any],
        poll_interval: float = 0.5,
        log: bool = False,
        sslctx: ssl.SSLContext | None = None,
        *,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(
            addr,
            handler,
            poll_interval,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )
        self.scheme = "http" if sslctx is None else "https"
        self.sslctx = sslctx

        class DelegatingHTTPRequestHandler(BaseHTTPRequestHandler):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.process_request
                raise AttributeError(name)

            def process_request(self) -> None:
                self.server.delegate(self)  # type: ignore[attr-defined]  # our server

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                if log:
                    super().log_message(format, *args)

        self.RequestHandlerClass = DelegatingHTTPRequestHandler

    @property
    def server_port(self) -> int:
        """The bound port."""
        return self.port

    @property
    def server_name(self) -> str:
        """The bound host."""
        return self.host

    def delegate(self, request: Any) -> Any:
        """Call the handler with the request handler object; returns its result.

        Raises a TypeError of the handler if that has written nothing and returns something.
        """
        before = _sent(request)
        result = super().delegate(request)
        if result is None:
            return None
        with contextlib.suppress(OSError, ValueError):  # the handler has closed it
            request.wfile.flush()
        if before is not None and _sent(request) == before:
            raise Refused(_nothing_written(result), result)
        return result

    def _handle(self, request: Connection) -> None:
        if self.sslctx is None:
            self.RequestHandlerClass(request, request.client_address, self)  # type: ignore[arg-type]  # socket-like
            return
        from .protocols.tcp.tls import TLSConnection

        try:
            secured: Any = TLSConnection(request, self.sslctx)
        except OSError as error:  # as there: a failed handshake fails no test
            text = f"the TLS handshake failed: {error}"
            self._journal.diagnosed(Diagnostic(client_address=request.client_address, text=text))
            return
        self.RequestHandlerClass(secured, request.client_address, self)  # type: ignore[arg-type]  # socket-like
        secured.unwrap()


def _sent(request: Any) -> int | None:
    """How many bytes were sent on a request's connection; ``None`` if that is no longer ours."""
    # Private, because it is no method of a socket.
    return getattr(request.connection, "_sent", None)


def _nothing_written(result: object) -> TypeError:
    return TypeError(
        "the handler of a TestHTTPServer writes its response (send_response, end_headers, "
        "wfile.write) and may return anything then; it has written none, and returned "
        f"{type(result).__name__}: {shown(result)}"
    )


class TestSMTPServer(_Classic, SMTPServer):
    """``TestSMTPServer(addr, handler, poll_interval, sockmap)``.

    The handler gets ``(peer, mailfrom, rcpttos, data)``; ``data`` is text with ``\\n`` line ends
    and none at its end. ``sockmap`` is accepted and ignored: it was for asyncore.
    """

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        addr: Any,
        handler: Callable[[Any, str, list[str], str], Any],
        poll_interval: float = 0.5,
        sockmap: dict[int, Any] | None = None,
        *,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(
            addr,
            handler,  # type: ignore[arg-type]  # four arguments
            poll_interval,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )

    def _handle(self, request: Mail) -> Any:
        text = request.data.decode("utf-8", "replace").replace("\r\n", "\n")
        return self.process_message(
            request.peer, request.mail_from, request.rcpt_tos, text.removesuffix("\n")
        )

    def _overridden(self) -> Callable[..., Any] | None:
        method = self.process_message
        inherited = getattr(method, "__func__", None) is TestSMTPServer.process_message
        return None if inherited else method

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: str) -> Any:
        """Call the handler; returns its result: ``None`` or an SMTP reply. May be overridden."""
        assert self._slot.handler is not None
        return self._slot.handler(peer, mailfrom, rcpttos, data)


class TestUnixStreamServer(TestTCPServer):
    """A ``TestTCPServer`` over a Unix socket; ``addr`` is its path."""

    address_family = getattr(socket, "AF_UNIX", -1)


class TestUnixDatagramServer(TestUDPServer):
    """A ``TestUDPServer`` over a Unix socket; ``addr`` is its path."""

    address_family = getattr(socket, "AF_UNIX", -1)
