"""TLS in the child: ClientHellos, and records of a connection, whole and cut."""

from __future__ import annotations

import contextlib
import functools
import random
import ssl
from collections.abc import Iterable
from typing import Any, NamedTuple

from fuzz import tls_grammar
from fuzz.cases import Case, Fault, Target, byte_by_byte, cut
from fuzz.harness import Child, StepLoop
from fuzz.sockets import sizes
from kit.certificates import client_context, leaf, settings
from sidestage.layers.tls.child.hello import LIMIT
from sidestage.layers.tls.child.layer import TLS
from sidestage.layers.tls.messages import Certificate, CertificateWanted
from sidestage.protocols.tcp.child.service import TCPService
from sidestage.protocols.tcp.messages import Opened, TCPSettings, TranscriptIn
from sidestage.wire.messages import Close, Data, Diagnostic, End

_HOUR = 3600.0
_MOST_BYTES = 700  # of an input that is cut at every byte
_ALERT, _HANDSHAKE = 21, 22
_PLAIN = "a client spoke to this server without TLS"


class _Layers:
    """The layer for one service after another: to make its context takes longer than a case."""

    def __init__(self, **given: Any) -> None:
        self._settings = settings(**given)
        self._any_host = self._settings.any_host
        self._made: TLS | None = None

    def __call__(self, service: Any) -> TLS:
        if self._made is None or self._any_host:
            self._made = TLS(service, self._settings)
        self._made.service = service
        return self._made


def _records(data: bytes) -> tuple[int, ...]:
    """The types of the records that a client got; raises Fault if they are none."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 3 : at + 5])
        if len(data) < at + 5 + size or size > (1 << 14) + 256:
            raise Fault(f"no records: {data[at : at + 80]!r}")
        found.append(data[at])
        at += 5 + size
    return tuple(found)


class Answer(NamedTuple):
    """What came of a ClientHello: the types of records that the client got, and what was told."""

    records: tuple[int, ...]
    told: tuple[str, ...]


class TLSHellos(Target):
    """ClientHellos in one piece and in others: the same answer, and the same words about it."""

    name = "tls-hellos"
    what = "ClientHellos in the child, each in one piece and cut at some or all bytes"

    def __init__(self) -> None:
        super().__init__()
        self._loop: Any = None
        self._layers: dict[bool, _Layers] = {}

    def make(self, dice: random.Random) -> Case:
        if dice.random() < 0.3:
            parts, expected = tls_grammar.good(dice)
            return Case(parts, dice.getrandbits(32), expected)
        return Case(tls_grammar.hostile(dice), dice.getrandbits(32))

    def begin(self) -> None:
        self._loop = StepLoop()
        alpn = ("http/1.1",)
        self._layers = {
            any_host: _Layers(alpn=alpn, any_host=any_host) for any_host in (False, True)
        }

    def end(self) -> None:
        self._loop.close()

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        any_host, end = dice.random() < 0.2, dice.choice((b"", None, _HOUR))

        def served(pieces: Iterable[bytes]) -> Answer:
            return self._serve(pieces, any_host=any_host, end=end)

        whole = served([data] if data else [])  # nothing would be its end
        if case.expected is not None and len(data) <= LIMIT:  # small records may make it larger
            self._check_good(whole)
        ways = [cut(data, dice)]
        if len(data) <= _MOST_BYTES and dice.random() < 0.1:
            ways.append(byte_by_byte(data))
        for pieces in ways:
            self.seen["cuts"] += len(pieces)
            if (other := served(pieces)) != whole:
                lengths = [len(piece) for piece in pieces]
                raise Fault(f"cut otherwise, other outcome: {lengths} {other} {whole}")

    def _check_good(self, whole: Answer) -> None:
        self.seen["good"] += 1
        # Its key is random, so that nobody can go on from here.
        if whole.records[:1] != (_HANDSHAKE,) or _ALERT in whole.records:
            raise Fault(f"a good ClientHello is refused: {whole}")

    def _serve(self, pieces: Iterable[bytes], *, any_host: bool, end: Any) -> Answer:
        child = Child(
            TCPService, TCPSettings(), self._loop, handled=False, layer=self._layers[any_host]
        )
        for piece in pieces:
            child.feed(piece)
            _certify(child)
        out = bytes(child.link.out)
        if end == b"":
            child.feed(end)
        elif end is None:
            child.reset()
        else:
            child.pass_time(end)
        if not child.link.closed:
            child.reset()
        child.pass_time(_HOUR)
        child.check_empty()
        told = tuple(message.text for message in child.messages.of(Diagnostic))
        if child.messages.of(Opened, TranscriptIn):
            raise Fault("the protocol got a connection without a handshake")
        if len(told) > 1:
            raise Fault(f"told more than once: {told}")
        for text in told:
            self.seen["refused" if "refused" in text or "failed" in text else "told"] += 1
        if told and told[0].startswith(_PLAIN):  # its answer is the protocol's
            return Answer((), (_PLAIN,))  # it quotes what has come, as far as it has
        return Answer(_records(out), told)


def _certify(child: Child) -> None:
    """Give the child the certificates that it asks for."""
    for wanted in child.messages.of(CertificateWanted):
        made = leaf()
        child.messages.sent.remove(wanted)
        child.messages.flushed -= 1
        child.service.command(
            Certificate(token=wanted.token, certificate=made.certificate, key=made.key, error="")
        )
        child.settle()
        child.read()


# Records -----------------------------------------------------------------------------------------


@functools.cache
def _client_context(newest: bool) -> ssl.SSLContext:
    if newest:
        return client_context()
    return client_context(maximum_version=ssl.TLSVersion.TLSv1_2)


class _Client:
    """A client of TLS, whose bytes are cut as ``pieces`` says on their way to the child."""

    def __init__(self, child: Child, *, newest: bool) -> None:
        self.child = child
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = _client_context(newest)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self._taken = 0

    def handshake(self) -> None:
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            if data := self.outgoing.read():
                self.child.feed(data)
            self.pull()

    def pull(self) -> None:
        """Take what the server has sent."""
        out = bytes(self.child.link.out[self._taken :])
        self._taken += len(out)
        self.incoming.write(out)

    def records(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    def rest(self) -> tuple[bytes, bool]:
        """What the server has sent, and whether it has said that this is all."""
        self.pull()
        came = bytearray()
        try:
            while True:
                data = self.tls.read(1 << 16)
                if not data:
                    return bytes(came), True
                came += data
        except ssl.SSLZeroReturnError:
            return bytes(came), True
        except ssl.SSLError:
            return bytes(came), False


class Talk(NamedTuple):
    """What came of a connection."""

    data: bytes  # that the protocol got
    ended: str
    told: tuple[str, ...]


class TLSRecords(Target):
    """Connections whose records are changed and cut: what comes is what was sent, or refused."""

    name = "tls-records"
    what = "connections in the child, their records changed, in one piece and in others"

    def __init__(self) -> None:
        super().__init__()
        self._loop: Any = None
        self._layer: Any = None

    def make(self, dice: random.Random) -> Case:
        count = dice.choice((1, 1, 2, 3, 10))
        most = dice.choice((100, 100, 40_000))
        parts = tuple(dice.randbytes(1 + sizes(dice, most)) for _ in range(count))
        return Case(parts, dice.getrandbits(32), True)

    def begin(self) -> None:
        self._loop = StepLoop()
        self._layer = _Layers()

    def end(self) -> None:
        self._loop.close()

    def check(self, case: Case) -> None:
        dice = case.dice()
        changes, handled = dice.random() < 0.5, dice.random() < 0.5
        newest = dice.random() < 0.8
        end = dice.choice(("notify", "notify", "fin", "reset"))
        plan = dice.getrandbits(32)

        def talk(seed: int | None) -> Talk:
            changed = random.Random(plan) if changes else None
            child = Child(TCPService, TCPSettings(), self._loop, handled=handled, layer=self._layer)
            client = _Client(child, newest=newest)
            client.handshake()
            sent = _changed([client.records(part) for part in case.parts], changed)
            if end == "notify":
                sent += client.close_notify()
            pieces = [sent] if seed is None else cut(sent, random.Random(seed), 12)
            return self._talk(client, pieces, case.data, end=end, exact=not changes)

        whole = talk(None)
        self.seen["changed" if changes else "good"] += 1
        other = talk(dice.getrandbits(32))
        if end != "reset" and other != whole:
            raise Fault(f"cut otherwise, other outcome: {_short(other)} {_short(whole)}")

    def _talk(
        self, client: _Client, pieces: list[bytes], data: bytes, *, end: str, exact: bool
    ) -> Talk:
        child = client.child
        for piece in pieces:
            child.feed(piece)
        if end == "reset":
            child.reset()
        elif not child.link.closed:
            child.feed(b"")
        came = _echo(child) if child.service.handled else b""
        sent, notified = client.rest()
        if not child.link.closed:
            child.reset()
        child.pass_time(_HOUR)
        child.check_empty()
        ended = ""
        if not child.service.handled:
            [transcript] = child.messages.of(TranscriptIn)
            came, ended = transcript.data, transcript.ended
        told = tuple(message.text for message in child.messages.of(Diagnostic))
        if not data.startswith(came):
            raise Fault(f"other bytes came than were sent: {len(came)} of {len(data)}")
        if exact and (came != data or told):
            raise Fault(f"{len(came)} of {len(data)} bytes came: {told}")
        if exact and child.service.handled and end != "reset" and (sent, notified) != (data, True):
            raise Fault(f"{len(sent)} of {len(data)} bytes came back, to the end: {notified}")
        return Talk(came, ended, told)


def _short(talk: Talk) -> str:
    return f"{len(talk.data)} bytes, {talk.ended}, {talk.told}"


def _echo(child: Child) -> bytes:
    """Send back what has come, as a handler does that reads to the end; returns it."""
    [opened] = child.messages.of(Opened)
    came = b"".join(message.data for message in child.messages.of(Data))
    if came:
        child.service.command(Data(call=opened.call, data=came))
        child.settle()
    if child.messages.of(End):
        child.service.command(Close(call=opened.call, reset=False))
        child.settle()
    return came


def _changed(records: list[bytes], dice: random.Random | None) -> bytes:
    """The records, one of them changed if there are dice for it."""
    if dice is None:
        return b"".join(records)
    at = dice.randrange(len(records))
    record = records[at]
    match dice.randrange(7):
        case 0:
            where = dice.randrange(len(record))
            flipped = record[where] ^ (1 << dice.randrange(8))
            records[at] = record[:where] + bytes([flipped]) + record[where + 1 :]
        case 1:
            del records[at]
        case 2:
            records.insert(at, record)
        case 3:
            records.reverse()
        case 4:
            records.insert(at, dice.randbytes(dice.randrange(1, 40)))
        case 5:
            kind = dice.choice((20, 21, 22, 23, 24))
            size = dice.choice((0, 2, 100, 1 << 14, 0x4200, 0xFFFF))
            records.insert(at, tls_grammar.record(kind, bytes(size), 0x0303))
        case _:
            # If less was left out, the record that follows could begin with just these bytes.
            records[at] = record[: dice.randrange(len(record) - 8)]
            del records[at + 1 :]
    return b"".join(records)
