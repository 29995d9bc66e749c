"""Binds listening sockets and accepts their clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import select
import socket
from collections.abc import Callable

from ...pristine.socketfile import take_over
from ...wire.messages import Address, Configure
from ..iteration import LARGE, Iteration
from .stream import Receiver, Stream

LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_PORT_TRIES = 50  # a port that is free on 127.0.0.1 may be taken on ::1
_UDP_BUFFER = 1 << 23  # bytes; unprivileged processes get at most net.core.rmem_max
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_SECONDS = 1.0  # after there was no descriptor for a client, which stays in the backlog


def bind(config: Configure, kind: int) -> list[socket.socket]:
    """Bind the sockets of a server; ``kind`` is SOCK_STREAM or SOCK_DGRAM. Raises OSError."""
    if config.path is not None:
        with contextlib.chdir(config.cwd or "/"):
            sockets = [_bind_path(config.path, kind)]
    elif config.host == "localhost":
        sockets = _bind_loopbacks(config.port, kind)
    else:
        sockets = [_bind_host(config.host or "", config.port, kind)]
    for sock in sockets:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(config.backlog)
        else:
            _enlarge_buffer(sock)
    return sockets


def bound_address(sock: socket.socket) -> Address:
    """The address that ``sock`` is bound to, as messages carry it."""
    return wire_address(sock.getsockname())


def wire_address(address: object) -> Address:
    """An address of the socket module as messages carry it.

    Abstract Unix names start with a NUL character.
    """
    if isinstance(address, tuple):
        return address
    text = os.fsdecode(address) if isinstance(address, bytes) else str(address or "")
    return text.encode("utf-8", "backslashreplace").decode()  # paths need not be UTF-8


def _bind_host(host: str, port: int, kind: int) -> socket.socket:
    if host == LOOPBACKS[0][1]:  # as mostly: there is nothing to resolve, which takes long
        return _bind(LOOPBACKS[0][0], kind, (host, port))
    flags = socket.AI_PASSIVE
    family, _, _, _, address = socket.getaddrinfo(host or None, port, type=kind, flags=flags)[0]
    return _bind(family, kind, address)


def _bind(family: int, kind: int, address: object) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_loopbacks(port: int, kind: int) -> list[socket.socket]:
    for attempt in range(_PORT_TRIES):
        first = _bind(*LOOPBACKS[0][:1], kind, (LOOPBACKS[0][1], port))
        try:
            second = _bind(LOOPBACKS[1][0], kind, (LOOPBACKS[1][1], first.getsockname()[1]))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return [first]  # no IPv6 on this machine
            first.close()
            if error.errno != errno.EADDRINUSE or port or attempt == _PORT_TRIES - 1:
                raise
        else:
            return [first, second]
    raise AssertionError("unreachable")


def _bind_path(path: str, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or path.startswith("\0"):
                raise
            take_over(path, functools.partial(sock.bind, path))
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge_buffer(sock: socket.socket) -> None:
    force = getattr(socket, "SO_RCVBUFFORCE", 33)  # Linux; Python has no name for it
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, _UDP_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)


class Acceptor:
    """Accepts the clients of one listening socket, each with a new receiver."""

    def __init__(
        self,
        iteration: Iteration,
        sock: socket.socket,
        backlog: int,
        receiver: Callable[[], Receiver],
    ) -> None:
        self._iteration = iteration
        self._loop = iteration.loop
        self._sock = sock
        # Pass the number to the loop: given a socket that it does not know, asyncio on Python 3.11
        # formats its repr, which takes system calls.
        self._fd = sock.fileno()
        self._backlog = backlog
        self._receiver = receiver
        self._retry: asyncio.TimerHandle | None = None
        self._no_delay = sock.family != getattr(socket, "AF_UNIX", None)
        self._listen()

    def _listen(self) -> None:
        self._iteration.add_reader(self._fd, self._accept)

    def has_clients(self) -> bool:
        """Whether clients have connected that were not accepted yet."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def _accept(self) -> None:
        for _ in range(self._backlog + 1):  # at most the backlog, then other callbacks
            try:
                client, peername = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # the client has left already
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait(error)
                return
            self._receive(client, peername)

    def _receive(self, client: socket.socket, peername: object) -> None:
        """Take what the client has sent already, as most have; begin when it may be acted on."""
        first: bytes | OSError | None = None
        try:
            client.setblocking(False)
            if self._no_delay:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = client.recv(LARGE)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # the client has left already
            first = error
        self._iteration.taken += 1
        self._iteration.received.append((self._begin, (client, peername, first)))

    def _begin(self, accepted: tuple[socket.socket, object, bytes | OSError | None]) -> None:
        client, peername, first = accepted
        Stream(self._iteration, client, peername, self._receiver()).start(first)

    def _wait(self, error: OSError) -> None:
        context = {"message": "a client could not be accepted", "exception": error}
        self._loop.call_exception_handler(context)
        self._iteration.remove_reader(self._fd)
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._listen)

    def close(self) -> None:
        """Stop accepting clients."""
        if self._retry is not None:
            self._retry.cancel()
        self._iteration.remove_reader(self._fd)
        self._sock.close()
