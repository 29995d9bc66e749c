"""What the server refuses of what clients say: one place, rule by rule, each with its source.

Each rule raises ``Refused`` with the reply for the client. Where the server takes more than RFC
5321 allows, the rule says so.
"""

from __future__ import annotations

import functools
import re
import socket
import string
from typing import NamedTuple

COMMAND_LIMIT = 512  # bytes, with the line end (RFC 5321 4.5.3.1.4)
LINE_LIMIT = 998  # bytes of a line of a mail, without its line end (RFC 5321 4.5.3.1.6)
REFUSALS = 20  # refused commands without a mail between them; then the session ends

# What extensions add to the limit of MAIL: SIZE (RFC 1870 3), BODY (RFC 6152 2), SMTPUTF8
# (RFC 6531 3.1).
_MAIL_LIMIT = COMMAND_LIMIT + 26 + 17 + 10

_TLS = b"\x16\x03"  # the first bytes of a ClientHello (RFC 8446 5.1)
_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/[0-9.]+")
# Tests repeat a few commands, so keep what they were found to be; what is refused is not kept.
_kept = functools.lru_cache(maxsize=1024)

_CONTROL = re.compile(rb"[\0-\x1f\x7f]")

_TAKES_NOTHING = frozenset({"DATA", "QUIT", "RSET"})  # RFC 5321 4.1.1
_WANTS = {
    "HELO": "a domain",
    "EHLO": "a domain",
    "MAIL": "FROM:<address>",
    "RCPT": "TO:<address>",
    "VRFY": "an address",
}
VERBS = frozenset({*_TAKES_NOTHING, *_WANTS, "HELP", "NOOP"})
_NOT_OFFERED = frozenset(
    {"AUTH", "BDAT", "ETRN", "EXPN", "SAML", "SEND", "SOML", "STARTTLS", "TURN"}
)


class Refused(Exception):
    """What a rule refuses. ``reply`` goes to the client; with ``last``, the session ends."""

    def __init__(self, reply: str, *, last: bool = False) -> None:
        super().__init__(reply)
        self.reply = reply
        self.last = last


class Command(NamedTuple):
    """A command that no rule refuses so far."""

    verb: str  # in upper case
    argument: str  # without blanks at its ends


class Sender(NamedTuple):
    """The argument of MAIL."""

    address: str  # empty for a bounce
    parameters: tuple[str, ...]  # in upper case
    utf8: bool  # whether addresses may contain more than ASCII


# Command lines (RFC 5321 4.1.1) ----------------------------------------------------------------


def is_command_of_another_protocol(start: bytes | bytearray) -> bool:
    """Whether a client's first bytes will never become a line."""
    return start.startswith(_TLS)


@_kept
def command(line: bytes, *, extended: bool) -> Command:
    """Check a line with its line end; ``extended`` is whether the client has said EHLO."""
    _check_protocol(line)
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    name, _, argument = text.partition(b" ")
    verb = name.decode("ascii", "replace").upper()
    _check_length(line, _MAIL_LIMIT if extended and verb == "MAIL" else COMMAND_LIMIT)
    _check_verb(verb, name)
    if _CONTROL.search(argument):
        raise Refused(f"501 5.5.2 control characters in {quoted(argument)} (RFC 5321 4.1.2)")
    try:
        decoded = argument.decode().strip(" ")
    except UnicodeDecodeError:
        raise Refused(f"501 5.5.2 {quoted(argument)} is not UTF-8 (RFC 6531 3.3)") from None
    if decoded and verb in _TAKES_NOTHING:
        raise Refused(f"501 5.5.4 {verb} takes no argument (RFC 5321 4.1.1)")
    if not decoded and verb in _WANTS:
        raise Refused(f"501 5.5.4 {verb} needs {_WANTS[verb]} (RFC 5321 4.1.1)")
    return Command(verb, decoded)


def _check_protocol(line: bytes) -> None:
    """Name what else this is, and end the session: each further line would be wrong too."""
    if line.startswith(_TLS):
        why = (
            "this is a TLS handshake, the server speaks plain SMTP: connect without TLS, or have "
            "the server speak it (tls=True)"
        )
        raise Refused(f"554 5.5.1 {why}", last=True)
    if _HTTP.match(line):
        raise Refused("554 5.5.1 this is HTTP, the server speaks SMTP", last=True)


def _check_length(line: bytes, limit: int) -> None:
    """RFC 5321 4.5.3.1.4 and 4.5.3.1.9."""
    if len(line) > limit:
        raise Refused(f"500 5.5.2 Line too long: at most {limit} bytes (RFC 5321 4.5.3.1.4)")


def _check_verb(verb: str, name: bytes) -> None:
    """RFC 5321 4.2.4: 502 for what is known and not offered, 500 for the rest."""
    if verb in _NOT_OFFERED:
        raise Refused(f"502 5.5.1 {verb} is not offered (RFC 5321 4.2.4)")
    if verb not in VERBS:
        raise Refused(f"500 5.5.1 {quoted(name)} is no command (RFC 5321 4.2.4)")


def check_order(verb: str, *, greeted: bool, sender: bool, recipients: bool) -> None:
    """RFC 5321 4.1.4: EHLO or HELO, then MAIL, then RCPT, then DATA."""
    if verb not in {"MAIL", "RCPT", "DATA"}:
        return
    if not greeted:
        raise Refused(f"503 5.5.1 {verb} before EHLO or HELO (RFC 5321 4.1.4)")
    if verb == "MAIL":
        if sender:
            raise Refused("503 5.5.1 MAIL in a mail: RSET forgets that (RFC 5321 4.1.4)")
    elif not sender:
        raise Refused(f"503 5.5.1 {verb} before MAIL (RFC 5321 3.3)")
    elif verb == "DATA" and not recipients:
        raise Refused("503 5.5.1 DATA before a RCPT that was accepted (RFC 5321 3.3)")


def help_on(topic: str) -> str:
    """The reply to HELP (RFC 5321 4.1.1.8); raises Refused for what is no command."""
    verb = topic.upper()
    if not verb:
        return f"214 Commands: {' '.join(sorted(VERBS))}"
    if verb not in VERBS:
        raise Refused(f"504 5.5.4 no help on {quoted(topic)} (RFC 5321 4.3.2)")
    return f"214 Syntax: {verb} {_WANTS.get(verb, '')}".rstrip()


# Addresses (RFC 5321 4.1.2) --------------------------------------------------------------------


def _one_of(characters: str) -> str:
    """A pattern for one of these characters, or one beyond ASCII (RFC 6531 3.3).

    It says what is excluded: ``re`` takes 5 ms to compile a range of all that is beyond ASCII.
    """
    return f"[^{re.escape(''.join(c for c in map(chr, range(128)) if c not in characters))}]"


_ALPHANUMERIC = string.ascii_letters + string.digits
# Dots may be anywhere: some providers have such addresses.
_DOTS = _one_of(_ALPHANUMERIC + "!#$%&'*+/=?^_`{|}~.-") + "+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
# An underscore is no part of a domain, but of the names of hosts in many a network of containers.
_LETTER = _one_of(_ALPHANUMERIC + "_")
_LABEL = rf"{_LETTER}(?:{_one_of(_ALPHANUMERIC + '_-')}*{_LETTER})?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# A domain may be missing: RFC 5321 4.1.1.3 has it so for postmaster alone.
_MAILBOX = re.compile(rf"(?:{_DOTS}|{_QUOTED})(?:@(?:{_DOMAIN}|\[([^][\\]+)\]))?")
_ROUTE = re.compile(rf"@{_DOMAIN}(?:,@{_DOMAIN})*:")
_BRACKETED = re.compile(rf'<((?:{_QUOTED}|[^"<>])*)>')
# Clients forget the brackets, and many servers do not mind.
_BARE = re.compile(rf'((?:{_QUOTED}|[^"<> ])+)')
_TAG = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+")

_VALUE = _one_of("".join(map(chr, range(0x21, 0x7F))).replace("=", ""))
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=({_VALUE}+))?")


@_kept
def sender(argument: str, *, extended: bool, size_limit: int) -> Sender:
    """Check the argument of MAIL (RFC 5321 4.1.1.2)."""
    path, rest = _path(argument, "FROM:")
    parameters = _parameters(rest, extended=extended)
    _check_known(parameters, ("SIZE", "BODY", "SMTPUTF8"))
    _check_size(parameters.get("SIZE", "0"), size_limit)
    if parameters.get("BODY", "7BIT").upper() not in {"7BIT", "8BITMIME"}:
        raise Refused("501 5.5.4 BODY is 7BIT or 8BITMIME (RFC 6152 2)")
    if parameters.get("SMTPUTF8"):
        raise Refused("501 5.5.4 SMTPUTF8 takes no value (RFC 6531 3.4)")
    utf8 = "SMTPUTF8" in parameters
    address = _address(path, "5.1.7", utf8=utf8) if path else ""  # RFC 5321 4.5.5: a bounce
    given = (f"{name}={value}".upper() if value else name for name, value in parameters.items())
    return Sender(address, tuple(given), utf8)


@_kept
def recipient(argument: str, *, extended: bool, utf8: bool) -> str:
    """Check the argument of RCPT (RFC 5321 4.1.1.3); returns the address."""
    path, rest = _path(argument, "TO:")
    _check_known(_parameters(rest, extended=extended), ())
    if not path:
        raise Refused("553 5.1.3 <> is no recipient (RFC 5321 4.1.1.3)")
    return _address(path, "5.1.3", utf8=utf8)


def too_many_recipients(limit: int) -> str:
    """The reply for each recipient after ``limit`` (RFC 5321 4.5.3.1.10)."""
    return f"452 4.5.3 Too many recipients: at most {limit}"


def _path(argument: str, keyword: str) -> tuple[str, str]:
    """Divide an argument into the path, without brackets, and what follows it.

    Blanks after the colon are taken, as most servers do (RFC 5321 3.3 forbids them).
    """
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(f"501 5.5.4 {quoted(argument)} is not {keyword}<address> (RFC 5321 4.1.1)")
    text = argument[len(keyword) :].lstrip(" ")
    found = (_BRACKETED if text.startswith("<") else _BARE).match(text)
    rest = text[found.end() :] if found is not None else ""
    if found is None or (rest and not rest.startswith(" ")):
        raise Refused(f"501 5.5.4 {quoted(text)} is no address in brackets (RFC 5321 4.1.2)")
    return found[1], rest


def _address(path: str, code: str, *, utf8: bool) -> str:
    """Check a path that is not empty; returns its mailbox, exactly as it was sent.

    A source route is recognized and ignored (RFC 5321 4.1.1.3, appendix C).
    """
    if not utf8 and not path.isascii():
        why = f"{quoted(path)} needs the parameter SMTPUTF8 in MAIL (RFC 6531 3.4)"
        raise Refused(f"553 5.6.7 {why}")
    route = _ROUTE.match(path)
    mailbox = path[route.end() :] if route is not None else path
    found = _MAILBOX.fullmatch(mailbox)
    if found is None or (found[1] is not None and not _is_literal(found[1])):
        raise Refused(f"553 {code} {quoted(mailbox)} is no address (RFC 5321 4.1.2)")
    return mailbox


def _is_literal(text: str) -> bool:
    """RFC 5321 4.1.3: an IPv4 address, ``IPv6:`` and an address, or another tag and a text."""
    if text[:5].upper() == "IPV6:":
        return _is_host(socket.AF_INET6, text[5:])
    return _is_host(socket.AF_INET, text) or _TAG.fullmatch(text) is not None


def _is_host(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


# Parameters (RFC 5321 4.1.1.11) ----------------------------------------------------------------


def _parameters(text: str, *, extended: bool) -> dict[str, str]:
    """Divide parameters into names, in upper case, and values, empty if there is none."""
    parameters: dict[str, str] = {}
    for part in filter(None, text.split(" ")):
        found = _PARAMETER.fullmatch(part)
        if found is None:
            raise Refused(f"501 5.5.4 {quoted(part)} is no parameter (RFC 5321 4.1.2)")
        name = found[1].upper()
        if name in parameters:
            raise Refused(f"501 5.5.4 the parameter {name} twice")
        parameters[name] = found[2] or ""
    if parameters and not extended:
        raise Refused("555 5.5.4 parameters are for clients that say EHLO (RFC 5321 4.1.1.11)")
    return parameters


def _check_known(parameters: dict[str, str], known: tuple[str, ...]) -> None:
    for name in parameters:
        if name not in known:
            raise Refused(f"555 5.5.4 the parameter {name:.40} is not known (RFC 5321 4.1.1.11)")


def _check_size(value: str, limit: int) -> None:
    """RFC 1870 4 and 6.1."""
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise Refused("501 5.5.4 SIZE is a number of up to 20 digits (RFC 1870 4)")
    if int(value) > limit:
        raise too_large(limit)


# The content of a mail (RFC 5321 4.1.1.4) ------------------------------------------------------


def too_large(limit: int) -> Refused:
    """What is raised for a mail above ``limit`` bytes (RFC 1870 6, RFC 5321 4.5.3.1.9)."""
    return Refused(f"552 5.3.4 Too much mail data: at most {limit} bytes")


def too_much_at_once() -> Refused:
    """What is raised for a mail that is one too many of those under way (RFC 5321 4.2.3)."""
    return Refused("452 4.3.1 too many large mails at once")


def line_too_long(number: int, size: int) -> Refused:
    """What is raised for a line of a mail above ``LINE_LIMIT`` (RFC 5321 4.5.3.1.9)."""
    why = f"line {number:,} has {size:,} bytes, at most {LINE_LIMIT} (RFC 5321 4.5.3.1.6)"
    return Refused(f"500 5.6.0 Line too long: {why}")


def bare_line_end(number: int, before: bytes, end: bytes) -> Refused:
    """What is raised for a line that ends in LF or CR alone (RFC 5321 2.3.8)."""
    what = "LF" if end == b"\n" else "CR"
    where = f"after {quoted(before)} in line {number:,}"
    return Refused(
        f"554 5.6.0 a bare {what} {where}: end lines with CRLF (RFC 5321 2.3.8, 4.1.1.4)"
    )


def false_end(refused: Refused) -> Refused:
    """What is raised for a line with nothing but a dot and a line end that is not CRLF.

    Its client thinks that the mail ends there, or has let somebody smuggle one in. So it must not
    be the end (RFC 5321 4.1.1.4), and what follows it must not be commands.
    """
    return Refused(refused.reply, last=True)


def quoted(text: str | bytes) -> str:
    """``text`` as messages quote it: in ASCII, and short (RFC 5321 4.5.3.1.5)."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return ascii(text[:80]) + ("..." if len(text) > 80 else "")
