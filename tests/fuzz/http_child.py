"""HTTP in the child: heads, bodies and pipelines, however they are cut, answered at any moment."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fuzz.cases import Case, Fault, Target, byte_by_byte, cut
from fuzz.harness import Child, StepLoop
from fuzz.http_answers import Answer, read_answers
from fuzz.http_grammar import LINES, SEEDS, Expected, chunks, hostile, requests
from fuzz.mutations import mutate, mutate_parts
from sidestage.protocols.http.child.service import HTTPService
from sidestage.protocols.http.messages import (
    HTTPSettings,
    Inform,
    Request,
    Respond,
    Trailers,
)
from sidestage.wire.messages import Ack, Close, Data, Diagnostic, End, Lost

_MOST_BYTES = 400  # of an input that is cut at every byte
_LINGER = 2.0  # seconds; the server lingers for one
_HOUR = 3600.0


class Handled:
    """A call of the handler, as the test's process sees it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body = bytearray(request.body)
        self.trailers = request.trailers
        # What a tunnel carries comes after the request (RFC 9110 9.3.6).
        self.complete = not request.more and request.method != "CONNECT"
        self.lost = self.responded = self.ended = False
        self.unread = len(request.body)

    @property
    def call(self) -> int:
        return self.request.call


class Parent:
    """The test's process: takes the messages of the child, and sends commands."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.calls: dict[int, Handled] = {}
        self._seen = 0

    def take(self) -> None:
        """Take the new messages."""
        sent = self.child.messages.sent
        while self._seen < len(sent):
            message = sent[self._seen]
            self._seen += 1
            if isinstance(message, Request):
                if message.call:
                    self.calls[message.call] = Handled(message)
                continue
            handled = self.calls.get(getattr(message, "call", 0))
            if handled is None:
                continue
            self._take(handled, message)

    def _take(self, handled: Handled, message: Any) -> None:
        if handled.lost or (handled.complete and isinstance(message, Data | End | Trailers)):
            raise Fault(f"{message!r} after the end of the call")
        match message:
            case Data():
                handled.body += message.data
                handled.unread += len(message.data)
            case Trailers():
                handled.trailers = message.fields
            case End():
                handled.complete = True
            case Lost():
                handled.lost = True
            case _:
                pass

    def send(self, *messages: Any) -> None:
        """Send commands."""
        for message in messages:
            self.child.service.command(message)
        self.child.settle()
        self.take()


def respond(handled: Handled, status: int = 200, body: bytes = b"", **given: Any) -> Respond:
    """The command for a response, or for its beginning."""
    handled.responded = True
    fields: dict[str, Any] = {"reason": "R", "headers": (), "length": len(body), "more": False}
    return Respond(call=handled.call, status=status, body=body, **{**fields, **given})


# Answers that depend on the request alone ---------------------------------------------------------


def _plain(call: Handled) -> list[Any]:
    return [respond(call, body=bytes(call.body[:100]))]


def _streamed(call: Handled) -> list[Any]:
    start = respond(call, body=b"1", length=None, more=True)
    trailer = Trailers(call=call.call, fields=b"X-T: 1\r\n")
    return [start, Data(call=call.call, data=b"23"), trailer, End(call=call.call)]


def _declared(call: Handled) -> list[Any]:
    headers = (("Content-Length", "3"),)
    start = respond(call, headers=headers, length=None, more=True)
    return [start, Data(call=call.call, data=b"abc"), End(call=call.call)]


def _declared_wrong(call: Handled) -> list[Any]:
    headers = (("Content-Length", "5"),)
    start = respond(call, headers=headers, length=None, more=True)
    return [start, Data(call=call.call, data=b"abc"), End(call=call.call)]


def _without_body(call: Handled) -> list[Any]:
    return [respond(call, 204 if zlib.crc32(call.body) & 1 else 304)]


def _closing(call: Handled) -> list[Any]:
    return [respond(call, 404, b"no", headers=(("Connection", "close"),))]


def _informed(call: Handled) -> list[Any]:
    early = Inform(call=call.call, status=103, reason="Early Hints", headers=(("Link", "</x>"),))
    return [early, respond(call, body=b"x")]


def _broken_off(call: Handled) -> list[Any]:
    start = respond(call, body=b"1", length=None, more=True)
    return [start, Close(call=call.call, reset=zlib.crc32(call.body) & 2 == 0)]


def _tunnelled(call: Handled) -> list[Any]:
    start = respond(call, length=None, more=True)
    return [start, End(call=call.call), Close(call=call.call, reset=False)]


_STYLES: tuple[Callable[[Handled], list[Any]], ...] = (
    *(_plain,) * 6,
    *(_streamed,) * 3,
    _declared,
    _declared_wrong,
    _without_body,
    _closing,
    _informed,
    _broken_off,
)


class Outcome(NamedTuple):
    """What came of the bytes of one connection."""

    recorded: tuple[Expected, ...]
    statuses: tuple[int, ...]
    bodies: tuple[bytes, ...]
    ended: bool


class HTTPCuts(Target):
    """The same bytes, in one piece and in others, with a handler and without: the same outcome."""

    what = "requests in the child, each in one piece and cut at some or all bytes"

    def __init__(self, name: str, make: Callable[[random.Random], Case]) -> None:
        super().__init__()
        self.name, self._make = name, make
        self._loop: Any = None

    def make(self, dice: random.Random) -> Case:
        return self._make(dice)

    def begin(self) -> None:
        self._loop = StepLoop()

    def end(self) -> None:
        self._loop.close()

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        handled, ends = dice.random() < 0.4, dice.random() < 0.6
        limit = 1 << 16 if dice.random() < 0.9 else 1000

        def served(pieces: Iterable[bytes]) -> Outcome:
            return _serve(self._loop, pieces, handled=handled, ends=ends, limit=limit)

        whole = served([data] if data else [])
        self.seen["requests"] += len(whole.recorded)
        self.seen["refusals"] += any(status >= 400 and status != 404 for status in whole.statuses)
        if case.expected is not None and limit == 1 << 16:
            _compare_expected(case.expected, whole, handled=handled)
        ways = [cut(data, dice)]
        if len(data) <= _MOST_BYTES and dice.random() < 0.1:
            ways.append(byte_by_byte(data))
        for pieces in ways:
            self.seen["cuts"] += len(pieces)
            other = served(pieces)
            if other != whole:
                sizes = [len(piece) for piece in pieces]
                raise Fault(f"cut otherwise, other outcome: {sizes} {_difference(other, whole)}")


def _serve(
    loop: StepLoop, pieces: Iterable[bytes], *, handled: bool, ends: bool, limit: int
) -> Outcome:
    child = Child(HTTPService, HTTPSettings(head_limit=limit), loop, handled=handled)
    parent = Parent(child)
    for piece in pieces:
        child.feed(piece)
        _answer(parent)
    if ends:
        child.feed(b"")
        _answer(parent)
    outcome = _outcome(child, parent)
    if not child.link.closed:
        if outcome.ended:
            child.pass_time(_LINGER)
        else:
            child.reset()
    parent.take()
    child.pass_time(_HOUR)
    child.check_empty()
    return outcome


def _answer(parent: Parent) -> None:
    """Answer all that is complete, until there is nothing more."""
    child = parent.child
    while True:
        parent.take()
        ready = [c for c in parent.calls.values() if not (c.responded or c.lost)]
        progress = False
        for call in ready:
            if call.complete or (call.request.method == "CONNECT"):
                progress = True
                parent.send(*_style(call))
            else:
                size, call.unread = call.unread, 0
                more: list[Any] = [Ack(call=call.call, size=size)] if size else []
                if call.request.expects and not call.body:
                    more.append(Inform(call=call.call, status=100, reason="Continue", headers=()))
                parent.send(*more)
                progress |= size > 0
        child.read()
        if not progress:
            break
    if child.link.coming and not (child.link.closed or child.stream.is_closing()):
        raise Fault(f"reading is paused for good with {len(child.link.coming)} pieces to come")


def _style(call: Handled) -> list[Any]:
    request = call.request
    number = zlib.crc32(f"{request.method} {request.target}".encode())
    if request.method == "CONNECT":
        return _tunnelled(call) if number & 1 else _plain(call)
    return _STYLES[number % len(_STYLES)](call)


def _outcome(child: Child, parent: Parent) -> Outcome:
    recorded: list[Expected] = []
    methods: list[str | None] = []
    answered = 0
    for request in child.messages.of(Request):
        call = parent.calls.get(request.call)
        methods.append(request.method)
        complete = call is None or call.complete
        answered += call is None or call.responded
        if complete and request.method != "CONNECT":
            body = request.body if call is None else bytes(call.body)
            trailers = request.trailers if call is None else call.trailers
            recorded.append(_recorded(request, body, trailers))
    stream, link = child.stream, child.link
    ended = link.closed or stream.is_closing() or stream.lingers
    diagnosed = [message.text for message in child.messages.of(Diagnostic)]
    refusals = [text for text in diagnosed if text.startswith("sent ")]
    answers = read_answers(bytes(link.out), [*methods, None], ended=ended)
    _check_answers(answers, answered, refusals, ended=ended)
    bodies = () if "CONNECT" in methods else tuple(answer.body for answer in answers)
    return Outcome(tuple(recorded), tuple(answer.status for answer in answers), bodies, ended)


def _recorded(request: Request, body: bytes, trailers: bytes) -> Expected:
    fields = (line.partition(b":") for line in request.fields.split(b"\r\n") if line)
    return Expected(
        request.method,
        request.target,
        request.http_version,
        tuple((name, value.strip(b" \t")) for name, _, value in fields),
        body,
        trailers,
        closes=False,
    )


def _check_answers(
    answers: list[Answer], answered: int, refusals: list[str], *, ended: bool
) -> None:
    if len(refusals) > 1:
        raise Fault(f"refused more than once: {refusals}")
    if len(answers) != answered + len(refusals):
        raise Fault(
            f"{len(answers)} answers, but {answered} requests were answered and "
            f"{len(refusals)} refused"
        )
    if refusals:
        if not ended:
            raise Fault("refused, and the connection goes on")
        if answers[-1].status != int(refusals[0].split()[1]):
            raise Fault(f"the diagnostic says {refusals[0]!r}, the client got {answers[-1].status}")
    if any(not answer.whole for answer in answers) and not ended:
        raise Fault("a response without its end, and the connection goes on")


def _compare_expected(expected: tuple[Expected, ...], outcome: Outcome, *, handled: bool) -> None:
    wanted = tuple(request._replace(closes=False) for request in expected)
    got = outcome.recorded
    if handled and outcome.ended:  # a handler has closed the connection
        wanted = wanted[: len(got)]
    if got != wanted:
        raise Fault(f"recorded is not what was sent: {_difference(got, wanted)}")
    if not handled and set(outcome.statuses) != {200}:
        raise Fault(f"a good request was answered {outcome.statuses}")
    if expected[-1].closes and not outcome.ended:
        raise Fault("`Connection: close`, and the connection goes on")


def _difference(one: tuple[Any, ...], two: tuple[Any, ...]) -> str:
    """The first members that differ."""
    if len(one) != len(two):
        return f"{len(one)} and {len(two)}: {one} {two}"
    for first, second in zip(one, two, strict=True):
        if first != second:
            if isinstance(first, tuple) and isinstance(second, tuple):
                return _difference(first, second)
            return f"{first!r} and {second!r}"
    return "none"


# What is made ------------------------------------------------------------------------------------


def _choices(dice: random.Random) -> int:
    return dice.getrandbits(32)


def heads(dice: random.Random) -> Case:
    """One request, changed or not."""
    if dice.random() < 0.25:
        parts, expected = requests(dice, 1)
        return Case(parts, _choices(dice), expected)
    return Case(hostile(dice, SEEDS, 1), _choices(dice))


def pipelines(dice: random.Random) -> Case:
    """Several requests one after another, changed or not."""
    if dice.random() < 0.3:
        parts, expected = requests(dice, 5)
        return Case(parts, _choices(dice), expected)
    first, _ = requests(dice, 2)
    return Case((*first, *hostile(dice, SEEDS, 3)), _choices(dice))


def bodies(dice: random.Random) -> Case:
    """A body in chunks, changed."""
    head = b"POST /body HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    if dice.random() < 0.3:
        lines = dice.choice(_CHUNKS).partition(b"\r\n\r\n")[2].splitlines(keepends=True)
    else:
        lines = list(chunks(dice).parts)
    if dice.random() < 0.5:
        return Case((head, *mutate_parts(lines, dice, LINES)), _choices(dice))
    at = dice.randrange(len(lines)) if lines else 0
    lines[at : at + 1] = [mutate(line, dice) for line in lines[at : at + 1]]
    return Case((head, *lines), _choices(dice))


_CHUNKS = tuple(seed for seed in SEEDS if b"chunked" in seed and b"\r\n\r\n" in seed)
