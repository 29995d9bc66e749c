"""Values as a report shows them: short, in one line, and without what a terminal would act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import brief

if TYPE_CHECKING:
    from ..journal.secured import TLSDetails

QUOTED = 80  # bytes of what is quoted
_BINARY = 24  # of what is no text
WIDTH = 160  # characters of a line


def quoted(data: bytes, size: int | None = None) -> str:
    """The size of some bytes, and their beginning: ``5 bytes 'hello'``.

    ``size`` is how many there are, if ``data`` is only their beginning. Bytes that are UTF-8 are
    shown as text.
    """
    size = len(data) if size is None else size
    if not size:
        return "0 bytes"
    beginning = data[:QUOTED]
    text = _text(beginning, cut=size > len(beginning))
    most = len(beginning) if isinstance(text, str) else min(_BINARY, len(beginning))
    dots = "..." if size > most else ""
    return f"{count(size, 'byte')} {text[:most]!r}{dots}"


def _text(data: bytes, *, cut: bool) -> str | bytes:
    """Text if it is that; if ``cut``, its last character may be in parts."""
    for left_out in range(4 if cut else 1):
        try:
            text = data[: len(data) - left_out].decode()
        except UnicodeDecodeError:
            continue
        printable = all(character.isprintable() or character in "\t\r\n" for character in text)
        return text if printable else data
    return data


def count(number: int, what: str) -> str:
    """``1 byte``, ``2,000 bytes``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def took(seconds: float) -> str:
    """A time in milliseconds or seconds."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def line(text: str, width: int = WIDTH) -> str:
    """``text`` in one line, cut to ``width`` characters; others than printable ones are escaped."""
    short = text[: width + 1]
    escaped = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in short
    )
    return escaped if len(escaped) <= width else f"{escaped[:width]}..."


def over(tls: TLSDetails | None) -> str:
    """What was agreed with a client, as the end of what it has asked; empty without TLS."""
    if tls is None:
        return ""
    certificate = tls.client_certificate
    host = "" if tls.sni is None else f" for {tls.sni}"
    client = "" if certificate is None else f" as {certificate._told()}"
    return line(f" over {tls.version}{host}{client}")


def of_error(error: BaseException) -> str:
    """An error in one line: its type, and the first line of its text; of a group, that in it."""
    if isinstance(error, BaseExceptionGroup):
        return line(brief(error))
    name = line(str(type(error).__name__))
    try:
        text = str(error).strip()
    except Exception as other:  # noqa: BLE001 - whatever its __str__ raises
        text = f"(its text cannot be had: {type(other).__name__})"
    first = line(text.partition("\n")[0]) if text else ""
    return f"{name}: {first}" if first else name
