"""The child's end of a protocol, in this process and without sockets: everything else is real.

A ``Link`` is what the kernel would be for one connection. Its stream, its receiver, the service and
the iteration are those of a server's process.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from fuzz.cases import Fault
from kit.encoded import decoded
from sidestage.child.iteration import Iteration
from sidestage.child.net.layer import LayerFactory, stacked
from sidestage.child.net.stream import Stream
from sidestage.child.service import Service
from sidestage.wire.frames import encode
from sidestage.wire.messages import Configure, Data, Message

_TURNS = 1000  # of the loop, until nothing more happens


class _Selector(selectors.BaseSelector):
    """Registers descriptors that do not exist, and never waits."""

    def __init__(self) -> None:
        self._map: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._map[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return self._map[fd]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._map


class StepLoop(asyncio.SelectorEventLoop):
    """A loop that runs when it is told to, and whose time stands still until timers are fired."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[asyncio.TimerHandle] = []
        self.failures: list[str] = []
        super().__init__(_Selector())
        self.set_exception_handler(lambda _, context: self.failures.append(_described(context)))

    def time(self) -> float:
        return self.now

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self.timers.append(asyncio.TimerHandle(when, callback, args, self, context))
        return self.timers[-1]

    def waiting(self) -> list[asyncio.TimerHandle]:
        """The timers that will fire."""
        self.timers = [timer for timer in self.timers if not timer.cancelled()]
        return self.timers

    def pass_time(self, seconds: float) -> None:
        """Let some time pass, and fire what is due."""
        self.now += seconds
        due = [timer for timer in self.waiting() if timer.when() <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in sorted(due, key=asyncio.TimerHandle.when):
            if not timer.cancelled():
                timer._run()

    def once(self) -> None:
        """Run what is ready."""
        self.call_soon(self.stop)
        self.run_forever()

    def is_idle(self) -> bool:
        """Whether nothing is ready to run."""
        return not self._ready  # type: ignore[attr-defined]


def _described(context: dict[str, Any]) -> str:
    error = context.get("exception")
    if error is None:
        return str(context["message"])
    at = error.__traceback__
    frames = []
    while at is not None:
        frames.append(f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}")
        at = at.tb_next
    return "\n    ".join([f"{type(error).__name__}: {error}", *frames[-6:]])


class Messages:
    """An outbox that keeps what is sent; each message is encoded, as for the pipe."""

    limit = 0

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.flushed = 0

    def send(self, message: Message) -> None:
        encode(message)
        self.sent.append(message)

    record = note = send

    def add_encoded(self, message: bytes, *, kept: bool) -> None:
        self.sent.append(decoded(message))

    def send_data(self, call: int, data: bytes | memoryview) -> None:
        self.send(Data(call=call, data=bytes(data)))

    def flush(self) -> None:
        self.flushed = len(self.sent)

    def of(self, *kinds: type) -> list[Any]:
        """The messages of these kinds."""
        return [message for message in self.sent if isinstance(message, kinds)]


class Link:
    """Stands for the socket of one connection."""

    family = socket.AF_INET
    _numbers = iter(range(1 << 20, 1 << 62))

    def __init__(self, messages: Messages) -> None:
        self.out = bytearray()  # what the client gets
        self.coming: deque[bytes] = deque()  # what it has sent; an empty one is its end
        self.space = 1 << 62  # bytes that the kernel takes from the server
        self.shut = self.closed = self.broken = False
        self._messages = messages
        self._number = next(self._numbers)

    def fileno(self) -> int:
        return self._number

    def recv_into(self, buffer: memoryview) -> int:
        if self.broken:
            raise ConnectionResetError
        if not self.coming:
            raise BlockingIOError
        data = self.coming.popleft()
        if len(data) > len(buffer):
            self.coming.appendleft(data[len(buffer) :])
            data = data[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.closed or self.shut:
            raise Fault("written after the end")
        if self._messages.flushed < len(self._messages.sent):
            raise Fault("an answer left before the messages about it")
        if self.broken:
            raise BrokenPipeError
        size = min(len(data), self.space)
        if not size:
            raise BlockingIOError
        self.out += data[:size]
        self.space -= size
        return size

    def shutdown(self, how: int) -> None:
        if self.broken:
            raise OSError("not connected")
        self.shut = True

    def setsockopt(self, *arguments: Any) -> None: ...

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)

    def close(self) -> None:
        self.closed = True


class FuzzedStream(Stream):
    """A stream that asks its link, not the kernel, whether there is more to read."""

    link: Link

    def has_unread(self) -> bool:
        return bool(self.link.coming)

    def read(self) -> None:
        """Read one piece, if reading is not paused."""
        if self._reading:
            self._read()

    def write_more(self) -> None:
        """Write what has waited."""
        if self._unsent:
            self._write_more()

    @property
    def lingers(self) -> bool:
        """Whether it ignores what still comes."""
        return self._lingering is not None


class Child:
    """A service, with one connection after another; ``events`` takes each new message."""

    def __init__(
        self,
        kind: type[Service],
        settings: Message,
        loop: StepLoop,
        *,
        handled: bool,
        layer: Callable[[Any], LayerFactory] | None = None,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"handler_timeout": 30.0, "keep": 1 << 26, **options}
        config = Configure(
            protocol="", settings=b"", host="", port=0, path=None, cwd=None, poll_interval=1.0,
            backlog=1, **given,
        )  # fmt: skip
        loop.timers.clear()  # of one that has failed
        loop.failures.clear()
        self.loop = loop
        self.messages = Messages()
        outbox: Any = self.messages
        self.iteration = Iteration(loop, outbox)
        self.service = kind(self.iteration, config, settings)
        self.service.handled = handled
        self.link = Link(self.messages)
        sock: Any = self.link
        receiver = self.service.receiver()
        if layer is not None:
            receiver = stacked(receiver, [layer(self.service)])
        self.stream = FuzzedStream(self.iteration, sock, ("127.0.0.1", 1), receiver)
        self.stream.link = self.link
        self.stream.start(None)
        self.settle()

    def settle(self) -> None:
        """Run iterations until nothing more happens."""
        for _ in range(_TURNS):
            self.iteration.act()
            if self.iteration.end() and self.loop.is_idle():
                break
            self.loop.once()
        else:
            raise Fault("the loop does not come to rest")
        if self.loop.failures:
            failures, self.loop.failures = self.loop.failures, []
            raise Fault(f"an exception in the child: {failures[0]}")

    def feed(self, data: bytes) -> None:
        """The client sends ``data``, or its end if that is empty; read what may be read."""
        self.link.coming.append(data)
        self.read()

    def read(self) -> None:
        """Read what has come, as far as reading is not paused."""
        while self.link.coming and self.stream.is_reading():
            self.stream.read()
            self.settle()

    def reset(self) -> None:
        """The client resets the connection."""
        self.link.broken = True
        self.link.coming.clear()
        if self.stream.is_reading():
            self.stream.read()
        else:
            self.stream.write_more()
        self.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.pass_time(seconds)
        self.settle()

    def check_empty(self) -> None:
        """After the end, nothing is left: raises Fault."""
        service = self.service
        if not self.link.closed:
            raise Fault("the connection is left open")
        if service.peers:
            raise Fault("the connection is left in the service's table")
        if len(service.calls):
            raise Fault(f"{len(service.calls)} calls are left in the table")
        service.calls.end()
        if timers := self.loop.waiting():
            raise Fault(f"a timer is left: {timers[0]!r}")
        if left := self.loop._selector.get_map().keys() & {self.link.fileno()}:  # type: ignore[attr-defined]
            raise Fault(f"{left} is left in the selector")
