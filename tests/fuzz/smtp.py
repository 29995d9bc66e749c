"""SMTP, in the child and over sockets: well-formed replies, and a mail on record for each 250."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from fuzz import smtp_grammar
from fuzz.cases import Case, Fault, Target, byte_by_byte, cut
from fuzz.harness import Child, StepLoop
from fuzz.smtp_grammar import END, Mail
from fuzz.sockets import Sockets, connect, read_all, reset, send_all
from sidestage import SMTPServer
from sidestage.protocols.smtp.child.service import SMTPService
from sidestage.protocols.smtp.messages import MailIn, MailReply, SMTPSettings

_REPLY = re.compile(rb"([2-5][0-9][0-9])([ -])([\t -~\x80-\xff]*)\r\n|([2-5][0-9][0-9])\r\n")
_PYTHON = re.compile(rb"\b(?:[A-Z][a-z]+)+(?:Error|Exception|Warning)\b|Traceback")
_HOUR = 3600.0
_MOST_BYTES = 300  # of an input that is cut at every byte


def read_replies(data: bytes) -> list[tuple[int, bytes]]:
    """The replies (RFC 5321 4.2), each with its text; raises Fault if one is not well formed."""
    replies = []
    at, text = 0, b""
    while at < len(data):
        found = _REPLY.match(data, at)
        if found is None:
            raise Fault(f"no reply: {data[at : at + 80]!r}")
        at = found.end()
        text += found[3] or b""
        if found[2] != b"-":
            replies.append((int(found[1] or found[4]), text))
            text = b""
    if text:
        raise Fault(f"a reply without its last line: {text!r}")
    return replies


def check_replies(replies: list[tuple[int, bytes]], sent: bytes) -> int:
    """Check the replies; returns how many mails were taken."""
    taken = 0
    if not replies or replies[0][0] != 220:
        raise Fault(f"no greeting: {replies[:1]}")
    for (before, _), (code, text) in itertools.pairwise(replies):
        if (name := _PYTHON.search(text)) is not None and name[0] not in sent:
            raise Fault(f"an exception of Python in a reply: {code} {text!r}")
        taken += before == 354 and code == 250
    return taken


def make(dice: random.Random) -> Case:
    """A session, good or not; it ends with what ends any."""
    if dice.random() < 0.25:
        parts, mails = smtp_grammar.good(dice)
        return Case((*parts, END), dice.getrandbits(32), mails)
    return Case((*smtp_grammar.hostile(dice), END), dice.getrandbits(32))


# In the child ------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a session."""

    replies: tuple[tuple[int, bytes], ...]
    mails: tuple[Mail, ...]


class SMTPCuts(Target):
    """Sessions in one piece and in others: the same replies and mails."""

    name = "smtp"
    what = "sessions in the child, each in one piece and cut at some or all bytes"

    def __init__(self) -> None:
        super().__init__()
        self._loop: Any = None

    def make(self, dice: random.Random) -> Case:
        return make(dice)

    def begin(self) -> None:
        self._loop = StepLoop()

    def end(self) -> None:
        self._loop.close()

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        handled, ends = dice.random() < 0.4, dice.random() < 0.3
        limit = 1 << 25 if dice.random() < 0.9 else 2000

        def served(pieces: Iterable[bytes]) -> Outcome:
            return self._serve(pieces, data, handled=handled, ends=ends, limit=limit)

        whole = served([data])
        self.seen["mails"] += len(whole.mails)
        if case.expected is not None and limit == 1 << 25 and whole.mails != case.expected:
            raise Fault(f"recorded is not what was sent: {whole.mails}, {case.expected}")
        ways = [cut(data, dice)]
        if len(data) <= _MOST_BYTES and dice.random() < 0.1:
            ways.append(byte_by_byte(data))
        for pieces in ways:
            self.seen["cuts"] += len(pieces)
            other = served(pieces)
            if other != whole:
                sizes = [len(piece) for piece in pieces]
                raise Fault(f"cut otherwise, other outcome: {sizes} {other} {whole}")

    def _serve(
        self, pieces: Iterable[bytes], data: bytes, *, handled: bool, ends: bool, limit: int
    ) -> Outcome:
        settings = SMTPSettings(size_limit=limit)
        child = Child(SMTPService, settings, self._loop, handled=handled)
        answered = 0
        for piece in pieces:
            child.feed(piece)
            answered = _answer(child, answered)
        if ends:
            child.feed(b"")
            answered = _answer(child, answered)
        out = bytes(child.link.out)
        if not child.link.closed:
            child.reset()
        child.pass_time(_HOUR)
        child.check_empty()
        replies = read_replies(out)
        mails = child.messages.of(MailIn)
        taken = check_replies(replies, data)
        if taken != len(mails):
            raise Fault(f"{taken} mails were taken, {len(mails)} are on record")
        recorded = (Mail(mail.mail_from, tuple(mail.rcpt_tos), mail.data) for mail in mails)
        return Outcome(tuple(replies), tuple(recorded))


def _answer(child: Child, answered: int) -> int:
    """Reply to the mails that the handler has not replied to; returns how many there are."""
    while True:
        mails = child.messages.of(MailIn)
        if answered == len(mails):
            return answered
        for mail in mails[answered:]:
            if mail.call:
                child.service.command(MailReply(call=mail.call, reply="250-taken\r\n250 OK"))
                child.settle()
                child.read()
        answered = len(mails)


# Over sockets ------------------------------------------------------------------------------------


class _Client(NamedTuple):
    sent: bytes = b""
    got: bytes = b""
    whole: bool = False  # read to the end


def _reply(mail: Any) -> str | None:
    assert repr(mail)
    assert mail.message is not None
    return None if len(mail.data) & 1 else "250 taken"


class SMTPSockets(Sockets):
    """Clients that send sessions in pieces, and end or reset them."""

    name = "smtp-sockets"
    what = "connections to an SMTP server"
    kind = SMTPServer
    handlers = (None, _reply)

    def __init__(self) -> None:
        super().__init__()
        self._clients: list[_Client] = []

    def make(self, dice: random.Random) -> Case:
        return make(dice)

    def begin_batch(self) -> None:
        super().begin_batch()
        self._clients = []

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        resets = dice.random() < 0.1
        with connect(self.server) as client:
            self._clients.append(_Client())
            send_all(client, cut(data, dice, 4))
            if resets:
                reset(client)
                return
            self._clients[-1] = _Client(data, read_all(client), True)

    def ask(self) -> None:
        data = b"".join(smtp_grammar.START) + b"good\r\n.\r\nQUIT\r\n"
        with connect(self.server) as client:
            client.sendall(data)
            replies = read_replies(read_all(client))
        if check_replies(replies, data) != 1:
            raise Fault(f"a good mail got {replies}")
        self._clients.append(_Client())

    def compare(self) -> None:
        records = defaultdict(list)
        for record in self.server.received:
            records[record.connection_number].append(record)
        if [record.data for record in records[len(self._clients)]] != [b"good\r\n"]:
            raise Fault(f"the good mail is recorded as {records[len(self._clients)]}")
        for number, client in enumerate(self._clients, 1):
            if not client.whole:
                continue
            try:
                taken = check_replies(read_replies(client.got), client.sent)
            except Fault as fault:
                raise Fault(f"{fault}; connection {number}: {client.sent[:500]!r}") from None
            self.seen["mails"] += taken
            if taken != len(records[number]):
                text = f"{taken} mails were taken, {len(records[number])} are on record"
                raise Fault(f"{text}: connection {number}: {client.sent[:500]!r}")
        if self.server.errors:
            raise Fault(f"a handler has raised {self.server.errors[0]!r}")
