"""Checks what ``TLS`` is given; each error quotes the value and says what is allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ...errors import shown
from ...pristine.imports import importing_once
from ...pristine.waits import Clock
from ...wire.values import plain

# A path, or what such a file has in it.
PEM: TypeAlias = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview

VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
OLD_VERSIONS = VERSIONS[:2]  # which OpenSSL refuses by default
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_BEGIN = b"-----BEGIN"
_DER = b"\x30"  # a SEQUENCE
_FIRST, _LAST = 978_307_200, 32_472_144_000  # 2001 to 2999: authorities are valid a year longer
_MOST_NAME = 64  # characters of a common name: RFC 5280 A.1
_MOST_HOST = 253  # characters: RFC 1035 2.3.4
_MOST_ALPN = 255  # bytes of a name: RFC 7301 3.1


class Secret(bytes):
    """A key, or what may have one in it; reports that show variables do not show what it is."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes that are secret>"


class SecretText(str):
    """The same as text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters that are secret>"


class Wrong(NamedTuple):
    """What is neither a path nor bytes; it may have a key in it."""

    kind: str  # the name of its type
    shown: str


class Pair(NamedTuple):
    """Certificates and a key, in PEM; empty where there are none."""

    certificate: bytes = b""
    key: bytes = Secret()


def hosts_or_none(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The names of a certificate, as it has them."""
    if value is None:
        return None
    names = _texts("hosts", value, 'hosts="api.example.com"')
    if not names:
        raise ValueError('hosts must name one at least, as in hosts="api.example.com"')
    if "*" in names and len(names) > 1:
        raise ValueError(f'hosts="*" is any host, and stands alone, not {shown(names)}')
    found = tuple(map(host, names))
    for name, written in zip(found, names, strict=True):
        if name.rpartition(".")[2].isdigit() and not _is_address(name):
            raise ValueError(f"hosts: {shown(written)} is no host: it ends as an IPv4 address does")
    return found


def host(name: str) -> str:
    """A host or a wildcard as certificates have it; raises ValueError if it is none.

    Raises ImportError if it has letters beyond ASCII, and the extra is missing.
    """
    wild = "*." if name.startswith("*.") else ""
    bare = name[len(wild) :]
    if not bare.isascii():
        bare = _in_ascii(bare)
    bare = bare.removesuffix(".")  # certificates have no dot at the end
    is_address = ":" in bare and "[" not in bare and "." not in bare.partition(":")[0]
    if name != "*" and not (_is_host(bare) or (is_address and not wild and _is_address(bare))):
        raise ValueError(
            f"hosts: {shown(name)} is no host; write a name or an address alone, such as "
            '"api.example.com", "*.example.com", "127.0.0.1" or "::1", without a scheme or a port'
        )
    return wild + bare


def _in_ascii(name: str) -> str:
    """A name by IDNA 2008 and UTS 46, as browsers, curl, requests and httpx send it."""
    try:
        with importing_once():
            import idna
    except ImportError as error:
        raise ImportError(
            f"hosts: {shown(name)} is put in ASCII by the package idna, which cannot be imported: "
            "pip install 'sidestage[tls]', or write it in ASCII, as xn--...",
            name=error.name,
        ) from error
    try:
        return idna.encode(name, uts46=True).decode()
    except UnicodeError as error:
        raise ValueError(
            f"hosts: {shown(name)} is no host by IDNA 2008 ({error}); what a client sends "
            "nevertheless can be written in ASCII, as xn--..."
        ) from None


def _is_host(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= _MOST_HOST and all(
        0 < len(label) < 64 and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a scope means something on one machine only


def alpn_or_none(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The protocols to choose from, the best first."""
    if value is None:
        return None
    names = _texts("alpn", value, 'alpn="h2"')
    for name in names:
        if not name.isascii() or not 0 < len(name) <= _MOST_ALPN:
            raise ValueError(
                f"alpn: {shown(name)} is no name of a protocol: these have 1 to {_MOST_ALPN} "
                'ASCII characters, as "h2"'
            )
    return names


def _texts(what: str, value: Any, right: str) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a str or several, as in {right}, not {shown(value)}")
    texts: tuple[Any, ...] = tuple(given)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"{what} must be text, as in {right}, and {shown(wrong[0])} is none")
    return tuple(plain(text) for text in texts)


def client_auth_or_none(value: str | None) -> str | None:
    """Whether clients have to show a certificate."""
    if value not in (None, "optional", "required"):
        raise ValueError(
            f'client_auth must be "required" or "optional", or None for none, not {shown(value)}'
        )
    return value


def version_or_none(value: Any) -> str | None:
    """The lowest version to speak, as ``ssl`` writes it; takes a ``ssl.TLSVersion``, too."""
    if value is None:
        return None
    name = value if isinstance(value, str) else getattr(value, "name", value)
    name = name.replace("_", ".") if isinstance(name, str) else name
    if name not in VERSIONS:
        raise ValueError(
            f"minimum_version must be one of {', '.join(map(repr, VERSIONS))}, not {shown(value)}"
        )
    return str(name)


def ciphers_or_none(value: str | None) -> str | None:
    """Ciphers up to TLS 1.2, as OpenSSL names them."""
    if value is None:
        return None
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f'ciphers must be text, as in ciphers="ECDHE+AESGCM", not {shown(value)}')
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(value)
    except (ssl.SSLError, ValueError):
        raise ValueError(
            f"ciphers: OpenSSL finds none by {shown(value)}; its names are in "
            "`openssl ciphers -v`, and those of TLS 1.3 cannot be chosen"
        ) from None
    return plain(value)


def clock_or_none(value: Callable[[], float] | None) -> Callable[[], float] | None:
    """What tells the time for certificates."""
    if value is not None and not callable(value):
        raise TypeError(
            "clock must be a function that returns seconds since the epoch, such as time.time, "
            f"not {shown(value)}"
        )
    return value


def told(clock: Callable[[], float] | None) -> float:
    """The time in seconds since the epoch, by a clock of the user's or by the real one."""
    if clock is None:
        return Clock.wall()
    now: Any = clock()
    if isinstance(now, bool) or not isinstance(now, (int, float)):
        advice = ""
        if callable(getattr(now, "timestamp", None)):  # a datetime
            advice = "; pass its method timestamp, as in clock=moment.timestamp"
        raise TypeError(
            "clock must return seconds since the epoch, as time.time does, not "
            f"{shown(now)}{advice}"
        )
    if not _FIRST <= now <= _LAST:  # nor is it NaN
        raise ValueError(
            "clock must tell a time from 2001 to 2999, in seconds since the epoch, not "
            f"{shown(now)}"
        )
    return float(now)


def common_name(value: str) -> str:
    """The name of a client."""
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f'the name of a client is text, such as "alice", not {shown(value)}')
    if not 0 < len(value) <= _MOST_NAME or not value.isprintable():
        raise ValueError(
            f"the name of a client has 1 to {_MOST_NAME} printable characters, not {shown(value)}"
        )
    return plain(value)


# PEM ---------------------------------------------------------------------------------------------


def hidden(value: Any) -> Any:
    """What may be, or have in it, a key: as a value that does not show it."""
    if value is None or isinstance(value, Secret):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Secret(value)
    if isinstance(value, str):
        return SecretText(value) if _BEGIN.decode() in value else value
    return value if isinstance(value, os.PathLike) else Wrong(type(value).__name__, safely(value))


def hide(options: Any) -> None:
    """Hide what may be a key in a ``dict`` of arguments of ``TLS``."""
    for name in {"cert", "key", "ca"} & options.keys():
        options[name] = hidden(options[name])


def safely(value: object) -> str:
    """``value`` as errors show it, but for what may be a key."""
    text = shown(value)
    if _BEGIN.decode() in text or isinstance(value, (bytes, bytearray, list, tuple, dict, set)):
        return f"a {type(value).__name__}"
    return text


def pem_or_none(what: str, value: Any) -> bytes | None:
    """What is in a PEM file, or was read from one; ``value`` is ``hidden``."""
    if value is None:
        return None
    if isinstance(value, Wrong):
        advice = ""
        if value.kind == "SSLContext":
            advice = "; a context does not give out its key: pass the files that it has loaded"
        raise TypeError(
            f"{what} must be the path of a PEM file, or its bytes, not {value.shown}{advice}"
        )
    if isinstance(value, SecretText):
        raise TypeError(f"{what}: a str is a path; pass PEM as bytes, {what}=pem.encode()")
    if isinstance(value, Secret):
        text: bytes = value
        source = what
    else:
        text = _content(what, value)
        source = f"{what}: {shown(os.fspath(value))}"
    if _BEGIN not in text:
        advice = ""
        if text[:1] == _DER:
            command = "pkey" if what == "key" else "x509"
            advice = f"; it seems to be DER or PKCS #12: convert it, by `openssl {command} -in ...`"
        raise ValueError(f"{source} is not PEM, which has a line -----BEGIN ...-----{advice}")
    return text


def _content(what: str, path: str | os.PathLike[Any]) -> Secret:
    """What is in a file; its errors say which option has named it."""
    try:
        return Secret(Path(os.fsdecode(path)).read_bytes())
    except OSError as error:
        text = f"{what} cannot be read: {error.strerror}"
        raise OSError(error.errno, text, os.fspath(path)) from None
    except ValueError as error:  # a null byte
        raise ValueError(f"{what}: {shown(os.fspath(path))} is no path: {error}") from None


def split(text: bytes | None) -> Pair:
    """The certificates and the first key that are in a PEM text."""
    certificates, keys = b"", Secret()
    for block in _BLOCK.finditer(text or b""):
        if block[1] == b"CERTIFICATE":
            certificates += block[0] + b"\n"
        elif block[1].endswith(b"PRIVATE KEY") and not keys:
            keys = Secret(block[0] + b"\n")
    return Pair(certificates, keys)
