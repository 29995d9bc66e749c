"""Makes SMTP sessions (RFC 5321): good ones, verbs in any order, changed lines, known attacks."""

from __future__ import annotations

import random
from typing import NamedTuple

from fuzz.mutations import mutate, mutate_parts

END = b"\r\n.\r\nQUIT\r\n"  # ends a session, whether it is in DATA or not

_ADDRESSES = ("a@b", "me@example.org", '"a b"@c', "x+y@[127.0.0.1]", "\xe9@\xfc.de", "a@b.c.d")
_ODD_ADDRESSES = (
    b"<", b">", b"<>", b"<@>", b"<a@[", b"<a@[x", b"<a", b"a@b", b"<<a@b>>", b'<"', b'<"a@b>',
    b"<@c,@d:a@b>", b"<a@b>x", b"<a b@c>", b"<a@b", b"<(c)a@b>", b"< a@b >", b"<a@b> SIZE=1",
    b"<\0@b>", b"<\xff@b>", b"<a@\r>", b"<\xed\xa0\x80@b>", b"<" + b"a" * 400 + b"@b>", b"<a@b;c>",
    b"<a\\@b>", b"<a@b>,<c@d>", b"<postmaster>", b"<a@=?utf-8?q?b?=>", b"<.@.>", b"<a@[]>", b"<(",
)  # fmt: skip
_OPTIONS = (
    b"", b"", b"", b" SIZE=10", b" BODY=8BITMIME", b" SMTPUTF8", b" SIZE=99999999999999", b" SIZE=",
    b" SIZE=\xd9\xa5", b" BODY=BINARYMIME", b" X=Y", b" AUTH=<>", b" =", b" SMTPUTF8=1", b" NOTIFY",
)  # fmt: skip
_VERBS = (
    b"HELO t", b"EHLO t", b"EHLO", b"HELO", b"DATA", b"DATA x", b"RSET", b"RSET x", b"NOOP",
    b"NOOP x", b"VRFY a@b", b"VRFY", b"VRFY <", b"EXPN x", b"HELP", b"HELP MAIL", b"HELP x",
    b"AUTH PLAIN", b"AUTH PLAIN AGEAYg==", b"AUTH LOGIN", b"AUTH", b"STARTTLS", b"STARTTLS x",
    b"BDAT 5 LAST", b"QUIT x", b"GET / HTTP/1.1", b"MAIL", b"MAIL FROM:", b"RCPT", b"RCPT TO:",
    b"MAIL FROM", b"data", b"ETRN x", b"XCLIENT ADDR=1.2.3.4", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2",
    b"", b" ", b"\0", b"\xff\xfe", b".", b"EHLO " + b"x" * 600, b"NOOP " + b"y" * 2000,
    b"HELO \xe9", b"EHLO \xff", b"_handle", b"__CLASS__",
)  # fmt: skip
_LINES = (
    b"", b"text", b".", b"..", b".x", b". ", b"Subject: \xe9", b"\0", b"\xff", b"x" * 998,
    b"x" * 999, b"x" * 1000, b"x" * 1001, b"x" * 5000, b"a\rb", b"a\nb", b"\n.", b"\r.", b"\n.\n",
    b"\r\r", b".\r",
)  # fmt: skip


class Mail(NamedTuple):
    """A mail as it must be recorded."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    data: bytes


def good(dice: random.Random) -> tuple[tuple[bytes, ...], tuple[Mail, ...]]:
    """A session of good mails, and these."""
    parts = [b"EHLO t\r\n"]
    mails = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        sender = dice.choice(_ADDRESSES[1:])
        rcpts = dice.choices(_ADDRESSES, k=dice.choice((1, 1, 2, 5)))
        utf8 = any(not text.isascii() for text in (sender, *rcpts))
        parts.append(b"MAIL FROM:<%b>%b\r\n" % (sender.encode(), b" SMTPUTF8" if utf8 else b""))
        parts += [b"RCPT TO:<%b>\r\n" % rcpt.encode() for rcpt in rcpts]
        lines = [_good_line(dice) for _ in range(dice.choice((0, 1, 5, 60)))]
        parts += [b"DATA\r\n", *(b"." * line.startswith(b".") + line for line in lines), b".\r\n"]
        mails.append(Mail(sender, tuple(rcpts), b"".join(lines)))
        if dice.random() < 0.2:
            parts.append(dice.choice((b"RSET\r\n", b"NOOP\r\n", b"VRFY a@b\r\n", b"EHLO t\r\n")))
    return tuple(parts), tuple(mails)


def _good_line(dice: random.Random) -> bytes:
    size = dice.choice((0, 1, 20, 78, 300, 997))
    line = dice.choice((b"", b"", b".", b"..")) + bytes(dice.choices(range(1, 256), k=size))
    return line.replace(b"\r", b"r").replace(b"\n", b"n")[:998] + b"\r\n"


def line(dice: random.Random) -> bytes:
    """A line that may stand anywhere in a session."""
    match dice.randrange(6):
        case 0 | 1:
            text = dice.choice(_VERBS)
        case 2:
            text = b"MAIL FROM:" + dice.choice(_ODD_ADDRESSES) + dice.choice(_OPTIONS)
        case 3:
            text = b"RCPT TO:" + dice.choice(_ODD_ADDRESSES) + dice.choice(_OPTIONS)
        case 4:
            text = b"MAIL FROM:<a@b>" + dice.choice(_OPTIONS)
        case _:
            text = dice.choice(_LINES)
    return text + dice.choice((b"\r\n",) * 12 + (b"\n", b"\r", b"", b" \r\n"))


def hostile(dice: random.Random) -> tuple[bytes, ...]:
    """A session in any order, or a changed one."""
    if dice.random() < 0.1:
        return tuple(dice.choice(SEEDS).splitlines(keepends=True))
    parts: tuple[bytes, ...]
    if dice.random() < 0.4:
        parts = tuple(line(dice) for _ in range(dice.choice((1, 3, 8, 30))))
        return (*START, *parts) if dice.random() < 0.7 else parts
    parts, _ = good(dice)
    others = tuple(line(dice) for _ in range(4))
    if dice.random() < 0.6:
        return mutate_parts(parts, dice, others)
    at = dice.randrange(len(parts))
    return (*parts[:at], mutate(parts[at], dice), *parts[at + 1 :])


START = (b"EHLO t\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n")
_TO_DATA = b"".join(START)

# Known attacks and accidents.
SEEDS: tuple[bytes, ...] = (
    # SMTP smuggling: ends of data that are none (CVE-2023-51764 and others)
    _TO_DATA + b"x\n.\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b"x\n.\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b"x\r\n.\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b"x\r.\rMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b"x\r\n.\r\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b"x\r\n\0.\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
    _TO_DATA + b".\r\n.\r\n",
    _TO_DATA + b"..\r\n.\r\n..\r\n",
    _TO_DATA + b"x" * 3000 + b"\r\n.\r\n",
    _TO_DATA + b"x" * 999 + b"\r\n.\r\n",
    _TO_DATA + b"x\n" * 600 + b"\r\n.\r\n",
    # Pipelining, after the end, in the wrong order
    _TO_DATA + b"x\r\n.\r\n" + _TO_DATA[8:] + b"y\r\n.\r\n",
    b"QUIT\r\nNOOP\r\nNOOP\r\n",
    b"DATA\r\nRCPT TO:<a@b>\r\nMAIL FROM:<a@b>\r\nHELO t\r\n",
    b"HELO t\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<c@d>\r\nRCPT TO:<a@b>\r\nRSET\r\nDATA\r\n",
    b"EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nbounce\r\n.\r\n",
    b"X\r\n" * 30,
    # Addresses that break parsers
    b"HELO t\r\nMAIL FROM:<a@b>\r\nRCPT TO:<\r\nRCPT TO:<a@[\r\nRCPT TO:<@\r\nRCPT TO:\r\n",
    b"EHLO t\r\nMAIL FROM:<a@b> SIZE=1 SIZE=2\r\nRCPT TO:<a@b> NOTIFY=NEVER\r\n",
    b"EHLO t\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<a@b>\r\n" * 300 + b"DATA\r\nx\r\n.\r\n",
    # Not SMTP
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"\0\0\0\0\r\n",
)
