"""Listen addresses: checked before anything starts, and formatted as URLs."""

from __future__ import annotations

import _socket
import errno
import os
import sys
from typing import Any, NamedTuple

from ..errors import StartError

AddressLike = Any  # (host, port), or a path as str, bytes or os.PathLike

LOOPBACKS = frozenset({"127.0.0.1", "::1", "localhost", "", None})  # not resolved
_MAX_PORT = 65535
_MAX_PATH = 107 if sys.platform == "linux" else 103  # bytes in sockaddr_un.sun_path, less the NUL
_TUPLE_SIZES = (2, 4)  # the socket module adds flowinfo and scope_id to IPv6 addresses


class Listen(NamedTuple):
    """Where to listen: a host and port, or a path."""

    host: str | None = None
    port: int = 0
    path: str | None = None

    def at_port(self, port: int) -> Listen:
        """Return the same address with another port, if it has a port."""
        return self if self.path is not None else Listen(self.host, port)

    def resolve(self, server: str) -> None:
        """Raise StartError, with ``server`` in its message, if the host does not resolve."""
        if self.path is not None or self.host in ("", "localhost") or _is_numeric(self.host):
            return
        try:
            _socket.getaddrinfo(self.host, self.port)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid IDNA name
            why = getattr(error, "strerror", None) or error
            raise StartError(
                errno.EADDRNOTAVAIL,
                f"{server} cannot listen: the host {self.host!r} does not resolve ({why}); "
                "listen on '127.0.0.1', '::1' or 'localhost'",
                address=(self.host, self.port),
            ) from error


def parse(address: AddressLike) -> Listen:
    """Check a listen address; raises TypeError or ValueError that says what is allowed."""
    if isinstance(address, (str, bytes, os.PathLike)):
        return _parse_path(os.fsdecode(address))
    if not isinstance(address, (tuple, list)) or len(address) not in _TUPLE_SIZES:
        raise TypeError(
            f"address must be (host, port), or the path of a Unix socket, not {address!r}"
        )
    host, port = address[0], address[1]
    if host is not None and not isinstance(host, str):
        raise TypeError(f"the host in the address must be a str, not {host!r}")
    if host and not is_encodable(host):
        raise ValueError(f"the host in the address cannot be one: {host!r}")
    return Listen(host or "", check_port(port))


def check_port(port: object) -> int:
    """Return ``port``; raises TypeError or ValueError unless it is an int from 0 to 65535."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"the port must be an int, not {port!r}; 0 lets the kernel choose")
    if not 0 <= port <= _MAX_PORT:
        raise ValueError(f"the port must be between 0 and {_MAX_PORT}, not {port}")
    return port


def not_encodable(path: str) -> ValueError:
    """Return the error for a path that cannot be sent to the server's process."""
    return ValueError(f"the path of a Unix socket must be UTF-8 here: {path!r}")


def _parse_path(path: str) -> Listen:
    if not path:
        raise ValueError("the path of a Unix socket must not be empty")
    if "\0" in path[1:] and not path.startswith("\0"):
        raise ValueError(f"the path of a Unix socket must not contain a NUL character: {path!r}")
    if not is_encodable(path.replace("\0", "")):
        raise not_encodable(path)
    host, colon, port = path.rpartition(":")
    is_host = path == "localhost" or ("\0" not in path and _is_numeric(path))
    if is_host or (colon and port.isdigit() and "/" not in host):
        raise ValueError(f"{path!r} is taken for a path; pass a tuple such as ('127.0.0.1', 0)")
    size = len(os.fsencode(path))
    if size > _MAX_PATH:
        raise ValueError(
            f"the path of a Unix socket may have {_MAX_PATH} bytes here, not {size}: {path!r}"
        )
    return Listen(path=path)


def is_encodable(text: str) -> bool:
    """Whether messages and the kernel accept ``text``: no lone surrogates, no NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _is_numeric(host: str | None) -> bool:
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host or "")
        except OSError:
            continue
        return True
    return False


def client_host(host: str) -> str:
    """The host that a client on this machine connects to for a server bound to ``host``."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared


def url(scheme: str, host: str | None, port: int | None, path: str | None) -> str:
    """The URL of a server, for its clients."""
    if path is not None:
        from urllib.parse import quote

        # Clients that speak HTTP over a Unix socket take the path percent-encoded as the host.
        return f"http+unix://{quote(path, safe='')}" if scheme == "http" else f"unix://{path}"
    name = client_host(host or "")
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
