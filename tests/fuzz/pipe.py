"""The pipe between the two processes: frames cut anywhere and changed, read at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import random
import resource
from collections.abc import Iterable, Iterator
from typing import Any, Self

from fuzz import pipe_messages
from fuzz.cases import Case, Fault, Target, byte_by_byte, cut
from kit.messages import COMMANDS, EVENTS, VOCABULARIES
from sidestage.child.host import Host
from sidestage.child.owner_watch import OwnerWatch
from sidestage.wire import messages
from sidestage.wire.frames import PIPE_SIZE, FrameBuffer, WireError, encode, pack
from sidestage.wire.messages import (
    Configure,
    LogLine,
    Ready,
    Resume,
    Stop,
    Stopped,
    Sync,
    Synced,
)

_ALL = tuple(dict.fromkeys((*COMMANDS, *EVENTS)))
_TURNS = 500  # of its loop, until it answers
_PEAK = 256 * 1024  # KiB that the process may grow at its highest


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Frames(Target):
    """Frames, however they are cut, give the same messages, or WireError and nothing else."""

    name = "frames"
    what = "frames of the pipe, cut and changed"
    batch = 5000

    def __init__(self) -> None:
        super().__init__()
        self._peak = 0

    def make(self, dice: random.Random) -> Case:
        parts = pipe_messages.frames(dice, _ALL)
        if dice.random() < 0.7:
            parts = pipe_messages.hostile(dice, parts)
        return Case(parts, dice.getrandbits(32))

    def begin(self) -> None:
        self._peak = peak()

    def check(self, case: Case) -> None:
        dice, data = case.dice(), case.data
        whole, broken = _read([data])
        self.seen["broken" if broken else "read"] += 1
        ways = [cut(data, dice)]
        if len(data) < 500 and dice.random() < 0.1:
            ways.append(byte_by_byte(data))
        for pieces in ways:
            messages, failed = _read(pieces)
            if failed != broken:
                raise Fault(f"cut otherwise, other outcome: {failed}, in one piece {broken}")
            if messages[: len(whole)] != whole or (len(messages) > len(whole) and not broken):
                raise Fault("cut otherwise, other messages")

    def end_batch(self) -> None:
        if peak() - self._peak > _PEAK:
            raise Fault(f"{peak() - self._peak} KiB more were needed")


def _read(pieces: list[bytes]) -> tuple[list[str], str]:
    """The messages, as text since NaN equals nothing, and the error if there was one."""
    buffer = FrameBuffer(_ALL)
    messages: list[str] = []
    try:
        for piece in pieces:
            messages += map(repr, buffer.feed(piece))
    except WireError as error:
        return messages, str(error)
    return messages, ""


# Commands of the test's process that may come at any time.
_COMMANDS = tuple(kind for kind in messages.COMMANDS if kind not in (Configure, Resume, Stop))


# Commands ----------------------------------------------------------------------------------------


class _Ended(SystemExit):
    """The child would have ended."""


class _Watch(OwnerWatch):
    def __init__(self) -> None:
        self.interval = 1.0


class _Host(Host):
    def _end(self, status: int = 0) -> Any:
        if self.service is not None:
            self.service.close_listeners()
        raise _Ended(status)


class Commands(Target):
    """Commands to the host of a server's process: it goes on, or ends as for a broken pipe."""

    name = "commands"
    what = "commands to a server's process"

    def __init__(self) -> None:
        super().__init__()
        self._handlers: list[logging.Handler] = []

    def make(self, dice: random.Random) -> Case:
        protocol = dice.choice(tuple(VOCABULARIES))
        kinds = (*_COMMANDS, *VOCABULARIES[protocol].commands * 3)
        parts = (bytes(encode(_configure(protocol))), *pipe_messages.frames(dice, kinds))
        if dice.random() < 0.5:
            parts = pipe_messages.hostile(dice, parts)
        return Case(parts, dice.getrandbits(32))

    def begin(self) -> None:
        self._handlers = logging.getLogger().handlers[:]

    def end(self) -> None:
        asyncio.set_event_loop(None)

    def check(self, case: Case) -> None:
        with _HostedHere() as host:
            try:
                # The first part apart: the messages of its protocol are known after it only.
                host.feed(case.parts[:1])
                host.feed(cut(b"".join(case.parts[1:]), case.dice(), 4))
                self.seen["obeyed" if host.obeys() else "waits for the rest"] += 1
            except _Ended as ended:
                self.seen["ended"] += 1
                if ended.args != (1,):
                    raise Fault(f"the child ends with {ended.args}") from None
            finally:
                logging.getLogger().handlers[:] = self._handlers


class _HostedHere:
    """A host that is driven step by step, and both ends of its pipes."""

    def __init__(self) -> None:
        commands, self._to_host = os.pipe()
        self._from_host, events = os.pipe()
        os.set_blocking(commands, False)
        os.set_blocking(self._from_host, False)
        self._fds = commands, self._to_host, self._from_host, events
        self._stderr = contextlib.redirect_stderr(io.StringIO())
        self._came: list[Any] = []
        self._buffer = FrameBuffer(EVENTS)
        self._buffer.learn(kind for words in VOCABULARIES.values() for kind in words.events)
        self.host = _Host(commands, events, _Watch())
        self.host.loop.add_reader(commands, self.host._iteration.act)
        self.host._selector.last = self.host._selector.get_key(commands)
        self.host._descriptors = 1 << 30  # the others of this process do not count

    def __enter__(self) -> Self:
        self._stderr.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stderr.__exit__(None, None, None)
        for task in asyncio.all_tasks(self.host.loop):
            task.cancel()
        for _ in range(3):
            self._run()
        if self.host.service is not None:
            self.host.service.close_listeners()
        self.host.loop.close()
        for fd in self._fds:
            os.close(fd)

    def _run(self) -> None:
        self.host.loop.call_soon(self.host.loop.stop)
        self.host.loop.run_forever()

    def _turn(self) -> None:
        self._run()
        with contextlib.suppress(BlockingIOError):
            self._came += self._buffer.feed(os.read(self._from_host, 1 << 20))

    def feed(self, parts: Iterable[bytes]) -> None:
        """Write the parts, and let the host read each; raises Fault for a defect it reports."""
        for part in parts:
            for piece in _pieces(part):
                os.write(self._to_host, piece)
                self._turn()
        self._turn()
        _check_events(self._came)

    def obeys(self) -> bool:
        """Stop and serve once more; ``False`` if it waits for the rest of a frame."""
        if self.host._buffer._rest:
            return False
        self._ask(Stopped, Stop(drain=0.0, caller=0))
        self._ask(Ready, _configure("tcp"))
        self._ask(Synced, Sync(token=1))
        self._ask(Stopped, Stop(drain=0.0, caller=0))
        return True

    def _ask(self, kind: type[Any], command: Any) -> None:
        self._came.clear()
        os.write(self._to_host, encode(command))
        for _ in range(_TURNS):
            if any(isinstance(event, kind) for event in self._came):
                return
            self._turn()
        raise Fault(f"no {kind.__name__} after {command}, but {self._came}")


def _pieces(part: bytes) -> Iterator[bytes]:
    """Pieces that the pipe takes at once."""
    for at in range(0, len(part), PIPE_SIZE // 2):
        yield part[at : at + PIPE_SIZE // 2]


def _check_events(came: list[Any]) -> None:
    """A command with values that no test's process sends may fail, which is logged; no more."""
    for event in came:
        if isinstance(event, LogLine) and not event.text.startswith("the co"):
            raise Fault(f"an exception in the child: {event.text}")


def _configure(protocol: str) -> Configure:
    return Configure(
        protocol=protocol,
        settings=pack(VOCABULARIES[protocol].settings()),
        host="127.0.0.1",
        port=0,
        path=None,
        cwd=None,
        poll_interval=0.5,
        handler_timeout=30.0,
        keep=1 << 20,
        backlog=8,
    )
