"""Listen addresses: checked before anything starts, and formatted as URLs."""

from __future__ import annotations

import _socket
import contextlib
import errno
import functools
import os
import sys
from typing import Any, NamedTuple, SupportsIndex, TypeAlias

from ..errors import StartError, shown
from ..pristine import system
from ..wire.values import integer, plain

# (host, port), for IPv6 maybe with flowinfo and scope_id, or the path of a Unix socket
AddressLike: TypeAlias = (
    tuple[str | None, SupportsIndex]
    | tuple[str | None, SupportsIndex, SupportsIndex, SupportsIndex]
    | list[Any]
    | str
    | bytes
    | os.PathLike[Any]
)

LOOPBACKS = frozenset({"127.0.0.1", "::1", "localhost", "", None})  # not resolved
_OF_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
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
                f"{server} cannot listen: the host {shown(self.host)} does not resolve ({why}); "
                "listen on '127.0.0.1', '::1' or 'localhost'",
                address=(self.host, self.port),
            ) from error


def parse(address: Any) -> Listen:
    """Check a listen address; raises TypeError or ValueError that says what is allowed."""
    if type(address) is tuple and len(address) == 2:
        host, port = address
        if type(host) is str and type(port) is int:
            return _parse_plain_pair(host, port)
    if isinstance(address, (bytes, os.PathLike)):
        return _parse_path(os.fsdecode(address))
    if isinstance(address, str):
        return _parse_text(plain(address))
    if not isinstance(address, (tuple, list)) or len(address) not in _TUPLE_SIZES:
        raise TypeError(
            "address must be (host, port), or the path of a Unix socket, not "
            f"{shown(address)}{_instead_of(address)}"
        )
    return _parse_pair(*address)


def _parse_pair(host: Any, port: Any, *rest: Any) -> Listen:
    if host is not None and not isinstance(host, str):
        raise TypeError(
            f"the host in the address must be a str, not {shown(host)}; "
            "an address is (host, port), such as ('127.0.0.1', 0)"
        )
    host = plain(host or "")
    if _is_url(host):
        raise ValueError(
            f"the host in the address must be a name or a number, and {shown(host)} is a URL; "
            "pass ('127.0.0.1', 0), say, and give clients server.url"
        )
    if not is_encodable(host):
        raise ValueError(f"the host in the address cannot be one: {shown(host)}")
    return Listen(_scoped(host, *rest), check_port(port))


# Nearly every server of a test has the same.
_parse_plain_pair = functools.lru_cache(maxsize=16)(_parse_pair)


def _instead_of(address: object) -> str:
    """What to write, as the end of a sentence, for a value that is meant for something else."""
    if callable(address):
        name = getattr(address, "__name__", "...")
        return f"; pass a handler by its keyword: handler={name}"
    if isinstance(address, int) and not isinstance(address, bool):
        return f"; for a port, pass ('127.0.0.1', {address}); 0 lets the kernel choose one"
    return ""


def _scoped(host: str, flow: Any = 0, scope: Any = 0) -> str:
    """The host with the scope of an IPv6 address as it is written (RFC 4007 11)."""
    if integer("the flowinfo in the address", flow):
        raise ValueError("a server cannot listen with a flowinfo: pass 0 in its place")
    number = integer("the scope_id in the address", scope)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"the scope_id must be from 0 to 4294967295, not {shown(number)}")
    return f"{host}%{number}" if number and "%" not in host else host


def check_port(port: object) -> int:
    """Return ``port``; raises TypeError or ValueError unless it is an int from 0 to 65535."""
    number = None
    if not isinstance(port, bool):
        with contextlib.suppress(TypeError):
            number = integer("the port", port)
    if number is None:
        raise TypeError(f"the port must be an int, not {shown(port)}; 0 lets the kernel choose")
    if not 0 <= number <= _MAX_PORT:
        raise ValueError(f"the port must be between 0 and {_MAX_PORT}, not {shown(number)}")
    return number


def not_encodable(path: str) -> ValueError:
    """Return the error for a path that cannot be sent to the server's process."""
    return ValueError(f"the path of a Unix socket must be UTF-8 here: {shown(path)}")


def _parse_text(path: str) -> Listen:
    """A path given as ``str``, which may be meant as a host. As bytes or a Path it is a path."""
    if _is_url(path):
        raise ValueError(
            f"{shown(path)} is a URL, and a server listens on an address: pass none, or "
            "('127.0.0.1', 0), and give clients server.url; or pass a Path if it is one"
        )
    host, colon, port = path.rpartition(":")
    is_host = path == "localhost" or path.isdecimal() or ("\0" not in path and _is_numeric(path))
    if is_host or (colon and port.isdigit() and not {"/", "\0"} & set(host)):
        raise ValueError(
            f"{shown(path)} is taken for a path; pass a tuple such as ('127.0.0.1', 0), or a Path "
            "if it is one"
        )
    return _parse_path(path)


def _parse_path(path: str) -> Listen:
    if not path:
        raise ValueError("the path of a Unix socket must not be empty")
    if "\0" in path[1:] and not path.startswith("\0"):
        raise ValueError(
            f"the path of a Unix socket must not contain a NUL character: {shown(path)}"
        )
    if not is_encodable(path.replace("\0", "")):
        raise not_encodable(path)
    size = len(os.fsencode(path))
    if size > _MAX_PATH:
        raise ValueError(
            f"the path of a Unix socket may have {_MAX_PATH} bytes here, not {size}: {shown(path)}"
        )
    return Listen(path=path)


def working_directory(path: str) -> str | None:
    """What a relative path is relative to; ``None`` if it was deleted: then nothing will bind."""
    try:
        directory = system.getcwd()
    except OSError:
        return None
    if not is_encodable(directory):
        raise not_encodable(f"{directory}/{path}")
    return directory


def is_encodable(text: str) -> bool:
    """Whether messages and the kernel accept ``text``: no lone surrogates, no NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _is_url(text: str) -> bool:
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme[:1].isalpha() and "/" not in scheme


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
    return _OF_ANY.get(host, host)


def url(scheme: str, host: str | None, port: int | None, path: str | None) -> str:
    """The URL of a server, for its clients."""
    if path is not None:
        from urllib.parse import quote

        # Clients that speak HTTP over a Unix socket take the path percent-encoded as the host.
        of_http = scheme in ("http", "https")
        return f"{scheme}+unix://{quote(path, safe='')}" if of_http else f"unix://{path}"
    name = client_host(host or "")
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
