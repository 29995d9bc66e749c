"""Binds listening sockets: one, both loopbacks for ``localhost``, or a Unix socket's path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from ...wire.messages import Address, Configure

LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_PORT_TRIES = 50  # a port that is free on one loopback may be taken on the other
_UDP_BUFFER = 1 << 23  # bytes asked for; without privileges the kernel's rmem_max is the bound


def bind(config: Configure) -> list[socket.socket]:
    """The bound sockets, listening where they are streams; raises OSError."""
    kind = socket.SOCK_DGRAM if config.protocol == "udp" else socket.SOCK_STREAM
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
    """Where ``sock`` is bound, in the wire's form."""
    return wire_address(sock.getsockname())


def wire_address(address: object) -> Address:
    """A socket's address in the wire's form; abstract Unix names start with a NUL character."""
    if isinstance(address, tuple):
        return address
    text = os.fsdecode(address) if isinstance(address, bytes) else str(address or "")
    return text.encode("utf-8", "backslashreplace").decode()  # a path need not be UTF-8


def _bind_host(host: str, port: int, kind: int) -> socket.socket:
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
            if error.errno != errno.EADDRINUSE or not _abandoned(path):
                raise
            os.unlink(path)
            sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _abandoned(path: str) -> bool:
    """Whether ``path`` is a socket that no process has open any more.

    A datagram socket asks, whatever was bound there: to it a live stream socket answers
    EPROTOTYPE and, unlike to a connection, notices nothing.
    """
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _enlarge_buffer(sock: socket.socket) -> None:
    force = getattr(socket, "SO_RCVBUFFORCE", 33)  # Linux; the module has no name for it
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, _UDP_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)
