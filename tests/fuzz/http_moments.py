"""HTTP in the child, where everything happens at any moment.

Pieces of requests, pieces of answers, time, full buffers, the client's end, the server's stop.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from fuzz.cases import Case, Fault, Target, cut
from fuzz.harness import Child, StepLoop
from fuzz.http_answers import read_answers
from fuzz.http_child import Handled, Parent, respond
from fuzz.http_grammar import SEEDS, hostile, requests
from sidestage.protocols.http.child.service import HTTPService
from sidestage.protocols.http.messages import HTTPSettings, Inform, Request, Trailers
from sidestage.wire.messages import Ack, Close, Data, End, Overdue

_OURS = 201  # the status of all answers by the handler
_HOUR = 3600.0
_PLENTY = 1 << 62
_TIMES = (0.01, 0.06, 0.06, 1.5, 31.0, 400.0)  # seconds that pass


class HTTPMoments(Target):
    """No exception, no state that cannot be left, no answer that was not given."""

    name = "http-moments"
    what = "requests in the child, answered, timed out, reset, blocked and stopped at any moment"

    def __init__(self) -> None:
        super().__init__()
        self._loop: Any = None

    def make(self, dice: random.Random) -> Case:
        parts, _ = requests(dice, 4)
        if dice.random() < 0.4:
            parts = (*parts, *hostile(dice, SEEDS, 2))
        return Case(parts, dice.getrandbits(32))

    def begin(self) -> None:
        self._loop = StepLoop()

    def end(self) -> None:
        self._loop.close()

    def check(self, case: Case) -> None:
        _Story(self._loop, case).tell()
        self.seen["stories"] += 1


class _Story:
    """What happens to one connection."""

    def __init__(self, loop: StepLoop, case: Case) -> None:
        self.dice = case.dice()
        self.child = Child(
            HTTPService, HTTPSettings(), loop, handled=self.dice.random() < 0.9, keep=1 << 20
        )
        self.parent = Parent(self.child)
        self.pieces = cut(case.data, self.dice, 12)
        self.sent: dict[int, bytearray] = {}  # by call: the body of the answer
        self.declared: dict[int, int] = {}  # by call: bytes to come
        self.asked = 0  # messages looked at for Overdue
        self.stop: asyncio.Task[Any] | None = None
        self.torn = False

    def tell(self) -> None:
        dice, child = self.dice, self.child
        acts = [self._client] * 4 + [self._handler] * 8 + [self._rare]
        for _ in range(200):
            dice.choice(acts)()
            self.parent.take()
            self._postpone()
            if child.link.closed and not self._open():
                break
        self._finish()

    # The client ----------------------------------------------------------------------------------

    def _client(self) -> None:
        if self.pieces:
            self.child.feed(self.pieces.pop(0))
        else:
            self.child.read()

    # The handler ---------------------------------------------------------------------------------

    def _open(self) -> list[Handled]:
        return [call for call in self.parent.calls.values() if not call.ended]

    def _handler(self) -> None:
        calls = self._open()
        if not calls:
            return
        call = self.dice.choice(calls)
        if not call.responded:
            self.parent.send(*self._before_head(call))
        else:
            self.parent.send(*self._after_head(call))

    def _before_head(self, call: Handled) -> list[Any]:
        dice, number = self.dice, call.call
        match dice.randrange(8):
            case 0:
                size, call.unread = call.unread, 0
                return [Ack(call=number, size=size)] if size else []
            case 1:
                status = 100 if call.request.expects and dice.random() < 0.5 else 103
                return [Inform(call=number, status=status, reason="", headers=())]
            case 2 | 3:
                body = dice.randbytes(dice.choice((0, 1, 100, 70_000)))
                self.sent[number] = bytearray(body)
                call.ended = True
                return [respond(call, _OURS, body)]
            case 4 | 5:
                body = dice.randbytes(dice.choice((0, 5, 70_000)))
                self.sent[number] = bytearray(body)
                return [respond(call, _OURS, body, length=None, more=True)]
            case 6:
                length = dice.choice((0, 5, 200_000))
                self.sent[number], self.declared[number] = bytearray(), length
                headers = (("Content-Length", str(length)),)
                return [respond(call, _OURS, headers=headers, length=None, more=True)]
            case _:
                if dice.random() < 0.8:
                    return []
                call.ended = True
                return [Close(call=number, reset=dice.random() < 0.5)]

    def _after_head(self, call: Handled) -> list[Any]:
        dice, number = self.dice, call.call
        match dice.randrange(6):
            case 0 | 1 | 2:
                most = self.declared.get(number, _PLENTY) - len(self.sent[number])
                data = dice.randbytes(min(most, dice.choice((0, 1, 1000, 100_000))))
                self.sent[number] += data
                return [Data(call=number, data=data)]
            case 3:
                return [Trailers(call=number, fields=b"X-T: 1\r\n")]
            case 4:
                call.ended = True
                closes = call.request.method == "CONNECT"
                return [End(call=number), *([Close(call=number, reset=False)] * closes)]
            case _:
                if dice.random() < 0.8:
                    return []
                call.ended = True
                return [Close(call=number, reset=dice.random() < 0.5)]

    def _postpone(self) -> None:
        sent = self.child.messages.sent
        for message in sent[self.asked :]:
            if isinstance(message, Overdue) and self.dice.random() < 0.8:
                wanted = self.dice.random() < 0.3
                self.child.service.calls.postponed(message.token, wanted=wanted)
        self.asked = len(sent)
        self.child.settle()

    # What happens seldom -------------------------------------------------------------------------

    def _rare(self) -> None:
        dice, child = self.dice, self.child
        match dice.randrange(8):
            case 0 | 1:
                child.pass_time(dice.choice(_TIMES))
            case 2:
                child.link.space = dice.choice((0, 1, 100, 70_000))
            case 3:
                child.link.space = _PLENTY
                child.stream.write_more()
                child.settle()
            case 4:
                child.feed(b"")
                self.pieces.clear()
            case 5 if dice.random() < 0.5:
                self.torn = True
                self.pieces.clear()
                child.reset()
            case 6 if self.stop is None:
                seconds = dice.choice((0.1, 3.0))
                task = child.service.drain(seconds, 0, lambda waits: None)
                self.stop = child.loop.create_task(task)
                self.torn = True
                child.settle()
            case 7:
                child.service.handled = not child.service.handled
            case _:
                pass

    # The end -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        child, parent = self.child, self.parent
        child.link.space = _PLENTY
        child.stream.write_more()
        child.settle()
        child.feed(b"")
        for _ in range(100):
            parent.take()
            calls = [call for call in self._open() if not call.lost]
            if not calls:
                break
            for call in calls:
                call.ended = True
                parent.send(Close(call=call.call, reset=False))
            child.read()
        else:
            raise Fault("there is always another call")
        child.read()
        child.pass_time(2.0)
        if not child.link.closed:
            self.torn = True
            child.reset()
        parent.take()
        for _ in range(3):
            child.pass_time(_HOUR)
            self._postpone()
        if self.stop is not None and not self.stop.done():
            raise Fault("the drain does not end")
        if self.stop is not None:
            self.stop.result()
        child.check_empty()
        self._check_answers()

    def _check_answers(self) -> None:
        methods = [request.method for request in self.child.messages.of(Request)]
        out = bytes(self.child.link.out)
        answers = read_answers(out, [*methods, None], ended=True, torn=True)
        if "CONNECT" in methods:
            return
        given = [call for call in self.parent.calls.values() if call.responded]
        ours = [answer for answer in answers if answer.status == _OURS]
        if len(ours) > len(given):
            raise Fault(f"{len(ours)} answers, {len(given)} were given")
        for answer, call in zip(ours, given, strict=False):
            body = bytes(self.sent[call.call])
            if call.request.method != "HEAD" and not body.startswith(answer.body):
                raise Fault("an answer has another body than was given")
