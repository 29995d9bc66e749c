"""Collects a ClientHello and reads what it asks for (RFC 8446 4.1.2, RFC 6066 3, RFC 7301 3.1).

No I/O here. OpenSSL judges the ClientHello; this only looks ahead, so that it is known who has
asked for what even where the handshake fails. What is malformed inside is left to OpenSSL.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from typing import NamedTuple

LIMIT = 1 << 16  # bytes of a ClientHello with its records
_ALERT, _HANDSHAKE = 21, 22  # types of records: RFC 8446 5.1
_OTHERS = {20: "change_cipher_spec", 23: "application data", 24: "a heartbeat"}
# How a ClientHello goes on that has the form of SSLv2, after its size: 1, and a version.
_SSLV2 = tuple(b"\1" + version for version in (b"\0\2", b"\3\0", b"\3\1", b"\3\2", b"\3\3"))
_SSLV2_HEAD = 5  # bytes, up to there
_CLIENT_HELLO = 1  # the type of a handshake message
_RECORD_HEAD = 5  # bytes
_MESSAGE_HEAD = 4
_RECORD = 1 << 14  # bytes in a record that is not encrypted (RFC 8446 5.1)
_EXTENSION = struct.Struct(">HH")  # its type and its size, before its content
DECODE_ERROR = 50  # an alert: RFC 8446 6.2
_UNEXPECTED_MESSAGE, _PROTOCOL_VERSION = 10, 70
_READ = _SNI, _ALPN, _VERSIONS = 0, 16, 43  # types of extensions
_VERSION_NAMES = {
    0x0300: "SSLv3",
    0x0301: "TLSv1",
    0x0302: "TLSv1.1",
    0x0303: "TLSv1.2",
    0x0304: "TLSv1.3",
}


class Hello(NamedTuple):
    """What a client asks for."""

    sni: str | None  # the host, as it was sent
    alpn: tuple[str, ...]
    versions: tuple[str, ...]  # as ``ssl`` names them, the best first


class NotTLS(Exception):
    """What came first is no TLS."""


class BadHello(Exception):
    """What came first is TLS, and no ClientHello that is taken; the text says why.

    ``alert`` is the one that the client is to get; ``None`` if none.
    """

    def __init__(self, text: str, alert: int | None = DECODE_ERROR) -> None:
        super().__init__(text)
        self.alert = alert


class Greeting:
    """Collects the records of a ClientHello, however they are cut."""

    def __init__(self) -> None:
        self.taken = bytearray()  # all that came, for OpenSSL
        self._message = bytearray()  # what is in the records
        self._at = 0  # where the next record begins

    def feed(self, data: bytes | memoryview) -> Hello | None:
        """Take the next piece; returns what the client asks for, once all of that has come.

        Raises NotTLS, BadHello.
        """
        taken = self.taken
        taken += data
        if taken[0] != _HANDSHAKE or taken[1:2].lstrip(b"\3"):
            _refuse(taken)
            return None
        while not self._is_complete():
            head = taken[self._at : self._at + _RECORD_HEAD]
            if len(head) < _RECORD_HEAD:
                break
            size = int.from_bytes(head[3:])
            if head[0] != _HANDSHAKE or not 0 < size <= _RECORD:
                raise BadHello("a TLS record in its ClientHello is malformed")
            end = self._at + _RECORD_HEAD + size
            if end > len(taken):
                break
            self._message += taken[self._at + _RECORD_HEAD : end]
            self._at = end
        complete = self._is_complete()
        # What follows a complete ClientHello may have come with it, and does not count.
        if (self._at if complete else len(taken)) > LIMIT:
            raise BadHello(f"its ClientHello is larger than {LIMIT:,} bytes")
        return read(bytes(self._message[_MESSAGE_HEAD:])) if complete else None

    def _is_complete(self) -> bool:
        message = self._message
        if not message:
            return False
        if message[0] != _CLIENT_HELLO:
            raise BadHello("its first message is not a ClientHello", _UNEXPECTED_MESSAGE)
        if len(message) < _MESSAGE_HEAD:
            return False
        size = int.from_bytes(message[1:_MESSAGE_HEAD])
        if size > LIMIT:
            raise BadHello(f"its ClientHello is larger than {LIMIT:,} bytes")
        return len(message) >= _MESSAGE_HEAD + size


def _refuse(first: bytearray) -> None:
    """Raise NotTLS or BadHello for what begins no ClientHello; returns while that is not clear."""
    kind, version = first[0], bytes(first[1:2])
    if kind == _HANDSHAKE:  # no text begins with it
        which = "of DTLS, which is for datagrams" if version == b"\xfe" else "that there is not"
        raise BadHello(
            f"its first record has a version {which} (0x{version.hex()}..)", _PROTOCOL_VERSION
        )
    if kind & 0x80 and any(one.startswith(first[2:_SSLV2_HEAD]) for one in _SSLV2):
        if len(first) >= _SSLV2_HEAD:
            raise BadHello(
                "its ClientHello has the form of SSLv2: have it use TLS 1.2 or later",
                _PROTOCOL_VERSION,
            )
        return
    if (kind != _ALERT and kind not in _OTHERS) or version.lstrip(b"\3"):
        raise NotTLS
    if kind == _ALERT and len(first) > _RECORD_HEAD + 1:
        raise BadHello(
            f"it began with the TLS alert {_alert_name(first[_RECORD_HEAD + 1])} and no "
            "ClientHello: it has given up by itself, and its own error says why",
            None,
        )
    if kind in _OTHERS and version:
        raise BadHello(
            f"its first TLS record is {_OTHERS[kind]} and no ClientHello: perhaps it goes on with "
            "a connection that it had to another server",
            _UNEXPECTED_MESSAGE,
        )


def _alert_name(number: int) -> str:
    try:
        return ssl.AlertDescription(number).name.removeprefix("ALERT_DESCRIPTION_").lower()
    except ValueError:
        return str(number)


class _Reader:
    """Reads from the front of some bytes; raises IndexError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise IndexError(size)
        self._at += size
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Reader:
        """A part that has its length, of ``size`` bytes, before it."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


def read(hello: bytes) -> Hello:
    """Read the body of a ClientHello, as far as it can be read."""
    sni: str | None = None
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    try:
        whole = _Reader(hello)
        versions = (whole.number(2),)
        whole.take(32)  # random
        for size in (1, 2, 1):  # session id, ciphers, compression
            whole.vector(size)
        for kind, content in _extensions(whole.vector(2).rest()):
            if kind == _SNI:
                sni = _read_sni(content)
            elif kind == _ALPN:
                alpn = _read_alpn(content)
            elif kind == _VERSIONS:
                versions = _read_versions(content)
    except IndexError:
        pass
    # Some versions are none, to see whether a server can bear that (RFC 8701).
    names = (_VERSION_NAMES[one] for one in sorted(versions, reverse=True) if one in _VERSION_NAMES)
    return Hello(sni, alpn, tuple(names))


def _extensions(data: bytes) -> Iterator[tuple[int, _Reader]]:
    """The types and contents of extensions, up to one that is not whole; most are of no interest.

    A reader for each would take most of the time of a ClientHello.
    """
    at, end = 0, len(data)
    while at + _EXTENSION.size <= end:
        kind, size = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size + size
        if at > end:
            return
        if kind in _READ:
            yield kind, _Reader(data[at - size : at])


def _read_sni(content: _Reader) -> str | None:
    names = content.vector(2)
    while names:
        kind, name = names.number(1), names.vector(2).rest()
        if kind == 0:
            return name.decode("ascii", "backslashreplace")
    return None


def _read_alpn(content: _Reader) -> tuple[str, ...]:
    names, found = content.vector(2), []
    while names:
        found.append(names.vector(1).rest().decode("ascii", "backslashreplace"))
    return tuple(found)


def _read_versions(content: _Reader) -> tuple[int, ...]:
    versions, found = content.vector(1), []
    while versions:
        found.append(versions.number(2))
    return tuple(found)
