"""The life of a server process: boot, configure, serve, stop, and serve the next server.

It has one asyncio loop and one service at a time. It runs none of the user's code, and it ends when
the pipe from its owner ends. After a stop it serves again only if no descriptor and no task of the
last server is left, and else ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import fcntl
import itertools
import logging
import os
import select
import selectors
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ..pristine.socketfile import SocketFile
from ..wire.frames import (
    LARGE_PIPE_SIZE,
    PIPE_SIZE,
    FrameBuffer,
    Undecoded,
    WireError,
    unpack,
)
from ..wire.messages import (
    COMMANDS,
    WIRE_VERSION,
    Address,
    Ahead,
    Change,
    Close,
    Configure,
    Counts,
    Declare,
    Describe,
    Described,
    Draining,
    Failed,
    Handle,
    Hello,
    Hold,
    Idle,
    LogLine,
    Message,
    Misread,
    Postpone,
    Ready,
    Reply,
    Resume,
    Returned,
    Stop,
    Stopped,
    Sync,
    Withdraw,
)
from ..wire.values import printable
from .channel import Outbox, capacity, enlarge
from .iteration import Iteration
from .net import listener
from .net.hangups import make_hangups
from .owner_watch import OwnerWatch
from .service import Service, layer_of, outside_layers, protocols, service_of

_logger = logging.getLogger("sidestage.child")

_SPIN_SECONDS = 0.0001  # polling before the loop sleeps; doubling it makes no difference
_NO_BYTES = bytearray(4)  # an ``int`` of C
_HAS_EPOLL = hasattr(select, "epoll")  # Linux
_READ, _WRITE = 1, 4  # EPOLLIN and EPOLLOUT
_AS_EPOLL = {
    selectors.EVENT_READ: _READ,
    selectors.EVENT_WRITE: _WRITE,
    selectors.EVENT_READ | selectors.EVENT_WRITE: _READ | _WRITE,
}
_SETTLE_ITERATIONS = 4  # of the loop, until closed transports have closed their descriptors


class Host:
    """Runs one server after another."""

    # Over thirty lines: what a process has, a line each.
    def __init__(self, commands_fd: int, events_fd: int, watch: OwnerWatch) -> None:
        selector = _Selector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(selector)
        asyncio.set_event_loop(self.loop)
        self.outbox = Outbox(self.loop, events_fd)
        self.outbox.has_dropped = self._send_counts
        self._iteration = Iteration(self.loop, self.outbox)
        self._iteration.read_commands = self._read_commands
        self._iteration.hangups = make_hangups(self.loop)
        self._selector = selector
        selector.iteration = self._iteration
        self.service: Service | None = None
        self._watch = watch
        self._buffer = FrameBuffer(COMMANDS)
        self._commands_fd = commands_fd
        self._unread = bytearray(_NO_BYTES)
        self._enlarged = False  # whether the pipe for commands was made larger
        self._events_fd = events_fd
        self._task: asyncio.Task[None] | None = None
        self._ahead: tuple[Configure, list[socket.socket]] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Configure: self._configure,
            Resume: self._resume,
            Handle: self._handle,
            Change: self._change,
            Sync: lambda message: self._iteration.asked.append(message.token),
            Describe: self._describe,
            Stop: self._begin_stop,
            Postpone: self._postpone,
            Idle: self._idle,
            Undecoded: self._undecoded,
            Returned: self._returned,
            **dict.fromkeys((Declare, Reply, Hold, Withdraw), self._expect),
        }
        self._call: Callable[[Any], None] = self._drop  # takes the commands for calls
        self._descriptors = 0
        self._looking = False  # whether something is left: no command may begin meanwhile
        self._defects = 0
        logging.getLogger().addHandler(_Forwarder(self.outbox))

    def run(self) -> None:
        """Serve until the owner closes the pipe."""
        os.set_blocking(self._commands_fd, False)
        self.loop.add_reader(self._commands_fd, self._iteration.act)
        self._selector.last = self._selector.get_key(self._commands_fd)
        pipe = capacity(self._events_fd)
        self.outbox.send(Hello(pid=os.getpid(), version=WIRE_VERSION, pipe=pipe))
        self.loop.call_soon(self._preload, self._preloads())
        self._descriptors = _count_descriptors()
        self.loop.run_forever()

    def _preload(self, steps: Iterator[None]) -> None:
        """Do a step per iteration of the loop, until the first command comes."""
        asked = select.select([self._commands_fd], [], [], 0)[0]
        if not asked and self.service is None and self._task is None:
            for _ in itertools.islice(steps, 1):
                self.loop.call_soon(self._preload, steps)

    def _preloads(self) -> Iterator[None]:
        """Import each protocol, and then what not every server needs."""
        kinds = []
        for name in protocols():
            kinds.append(service_of(name))
            self._buffer.learn(kinds[-1].vocabulary.commands)
            yield
        for kind in kinds:
            kind.preload()
            yield

    def _read_commands(self) -> None:
        """Take all commands that have come."""
        if self._looking:
            return
        if not self._selector.has_commands:  # they may have come since it looked
            fcntl.ioctl(self._commands_fd, termios.FIONREAD, self._unread)
            if self._unread == _NO_BYTES:  # a read that finds nothing takes three times as long
                return
        self._take_commands()

    def _take_commands(self) -> None:
        """Read until a read returns less than it asks for."""
        size = wanted = PIPE_SIZE  # ``os.read`` allocates what it is asked for
        data = b""
        space: memoryview | None = None
        while size == wanted:
            try:
                if space is None:
                    data = os.read(self._commands_fd, wanted)
                    size = len(data)
                else:
                    size = os.readv(self._commands_fd, (space,))
            except BlockingIOError:
                return
            if not size:
                self._end()
            try:
                messages = self._buffer.feed(data) if space is None else self._buffer.fill(size)
            except WireError as error:
                sys.stderr.write(f"the pipe from the owner broke: {error}\n")
                self._end(1)
            for message in messages:
                try:
                    self._handlers.get(type(message), self._call)(message)
                except Exception:
                    # Go on with the next command, but do not reuse this process.
                    self._defects += 1
                    _logger.exception("the command %r failed", type(message).__name__)
            if size == wanted:
                if wanted == PIPE_SIZE and not self._enlarged:
                    self._enlarged = True
                    enlarge(self._commands_fd)
                space = self._buffer.space()
                size = wanted = LARGE_PIPE_SIZE if space is None else len(space)

    def _end(self, status: int = 0) -> NoReturn:
        """Close the listeners, remove the socket's file and exit with ``status``."""
        if self.service is not None:
            self.service.close_listeners()
        self._watch.settle()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Commands ----------------------------------------------------------------------------------

    def _drop(self, message: Message) -> None:
        """A command that comes after the stop."""

    def _undecoded(self, message: Undecoded) -> None:
        """A command could not be read: tell the parent, and end the call that it was for."""
        self._defects += 1
        if message.kind is Configure:
            self.outbox.send(Failed(errno=None, text=message.text))
            return
        self.outbox.send(Misread(text=message.text))
        if message.call:
            self._call(Close(call=message.call, reset=True))

    def _postpone(self, message: Postpone) -> None:
        if self.service is not None:
            self.service.calls.postponed(message.token, wanted=message.wanted)

    def _idle(self, message: Idle) -> None:
        if self.service is not None:
            self.service.idle()

    def _returned(self, message: Returned) -> None:
        if self.service is not None:
            self.service.calls.returned(message.call)

    def _handle(self, message: Handle) -> None:
        if self.service is not None:
            self.service.handled = message.on

    def _expect(self, message: Declare | Reply | Hold | Withdraw) -> None:
        if self.service is not None:
            self.service.expect(message)

    def _send_counts(self) -> None:
        """Records of what met expectations may be among those that were dropped."""
        if self.service is not None and (counts := self.service.counts()):
            self.outbox.send(Counts(met=counts))

    def _describe(self, message: Describe) -> None:
        shown, more = ([], 0) if self.service is None else self.service.describe()
        self.outbox.send(Described(token=message.token, open=shown, more=more))

    def _change(self, message: Change) -> None:
        if self.service is not None:
            self.outbox.limit = message.keep
            self.service.change(message.handler_timeout, message.keep)

    def _configure(self, config: Configure) -> None:
        try:
            addresses = self._serve(config, self._take_ahead(config))
        except OSError as error:
            self.outbox.send(_failed(error))
        except Exception as error:
            _logger.exception("the configuration %r failed", config)
            text = printable(f"{type(error).__name__}: {error}")
            self.outbox.send(Failed(errno=None, text=text))
        else:
            self.outbox.send(Ready(addresses=addresses))

    def _resume(self, message: Resume) -> None:
        assert self._ahead is not None
        config, sockets = self._ahead
        self._ahead = None
        self._serve(config, sockets)

    def _take_ahead(self, config: Configure) -> list[socket.socket] | None:
        """What is bound ahead for this configuration; what is for another is closed."""
        if self._ahead is None:
            return None
        wanted, sockets = self._ahead
        self._ahead = None
        if wanted == config:
            return sockets
        for sock in sockets:
            sock.close()
        return None

    def _bind_ahead(self, config: Configure) -> None:
        """Bind for the next server; it is likely to be like the last."""
        sockets: list[socket.socket] = []
        with contextlib.suppress(OSError):  # then it is bound when it is asked for
            sockets = listener.bind(config, socket.SOCK_STREAM)
            self._ahead = (config, sockets)
        self.outbox.send(Ahead(addresses=[listener.bound_address(sock) for sock in sockets]))

    def _serve(self, config: Configure, sockets: list[socket.socket] | None) -> list[Address]:
        self._watch.interval = config.poll_interval
        self.outbox.limit = config.keep
        self.outbox.sheds = False
        kind = service_of(config.protocol, config._outside)
        self._buffer.learn(kind.vocabulary.commands)
        settings = unpack(kind.vocabulary.settings, config.settings)
        service = kind(self._iteration, config, settings)
        for name, layer_settings in config.layers:
            layer = layer_of(name)
            self._buffer.learn(layer.vocabulary.commands)
            made = layer(service, unpack(layer.vocabulary.settings, layer_settings))
            service.layers.append(made)
            self._watch.inherit(made.bequest)
        service.layers += outside_layers(config._layers)
        if sockets is None:
            sockets = listener.bind(config, kind.socket_kind)
        if config.path is not None and not config.path.startswith("\0"):
            service.remove_file = SocketFile(os.path.join(config.cwd or "/", config.path)).remove  # noqa: PTH118 - exactly as bound
        self.service = service
        self._call = service.command
        service.serve(sockets)
        return [listener.bound_address(sock) for sock in sockets]

    def _begin_stop(self, message: Stop) -> None:
        self._task = self.loop.create_task(self._stop_or_end(message))

    async def _stop_or_end(self, message: Stop) -> None:
        try:
            await self._stop(message)
        except Exception:  # noqa: BLE001 - whoever waits sees it end
            import traceback

            traceback.print_exc()
            self._end(1)

    async def _stop(self, message: Stop) -> None:
        service = self.service
        unfinished = []
        if service is not None:
            service.finished = message.finished
            unfinished = await service.drain(message.drain, message.caller, self._announce)
            if self.outbox.sheds:
                self._send_counts()
        self.service, self._call = None, self._drop
        self._watch.interval = 0.5
        clean = not self._defects
        ahead = clean and message.ahead and service is not None and service.may_be_ahead()
        self.outbox.send(Stopped(clean=clean, open=unfinished, ahead=ahead))
        self._looking = True
        self.outbox.flush()  # nobody has to wait for what follows
        why = await self._leftovers()
        if why:
            sys.stderr.write(f"this process serves no more: {why}\n")
            self._end(1)
        self._looking, self._task = False, None
        if ahead:
            assert service is not None
            self._bind_ahead(service.config)

    def _announce(self, waits: bool) -> None:
        if waits:  # else Stopped follows in a moment, which says as much
            self.outbox.send(Draining(waits=waits))

    # Leftovers ---------------------------------------------------------------------------------

    async def _leftovers(self) -> str:
        """Describe what is left of the last server; empty if the process can be reused."""
        why = ""
        for _ in range(_SETTLE_ITERATIONS):
            tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
            open_now = _count_descriptors()
            if not tasks and open_now <= self._descriptors:
                return ""
            why = f"{len(tasks)} tasks and {open_now - self._descriptors} descriptors are left"
            await asyncio.sleep(0)
        return why


class _Selector(selectors.DefaultSelector):
    """Ends an iteration when the loop is about to wait, and gives the next one what it receives.

    The loop gets the events of all other descriptors, since it takes more time for each. The
    iteration acts when the loop is done with these: by the callback of ``last``, which is reported
    as the last event. If the loop has nothing to do, the iteration acts at once.

    It polls for a moment before it sleeps: the handler's answer or the client's next request
    usually comes sooner than the kernel can wake a sleeping process, above all on a virtual
    machine. While it polls, it yields the CPU to other processes.
    """

    iteration: Iteration
    last: selectors.SelectorKey | None = None
    has_commands = True  # ``last`` has something to read, or has ended

    def __init__(self) -> None:
        super().__init__()
        # The epoll of the base, which makes an object of each event.
        self._epoll = select.epoll.fromfd(os.dup(self.fileno())) if _HAS_EPOLL else None
        self._poll: Callable[[float | None], list[tuple[int, int]]] = (
            self._poll_base if self._epoll is None else self._epoll.poll
        )

    def close(self) -> None:
        super().close()
        if self._epoll is not None:
            self._epoll.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        hurries = not self.iteration.end()
        if hurries:
            timeout = 0
        if timeout is None or timeout > _SPIN_SECONDS:
            end = time.perf_counter() + _SPIN_SECONDS
            while not (events := self._poll(0)) and time.perf_counter() < end:
                os.sched_yield()
            if not events:
                events = self._poll(timeout)
        else:
            events = self._poll(timeout)
        if not (events or hurries):
            return []
        others = self._share_out(events)
        if others or timeout == 0:  # the loop has something to do before this
            return others if self.last is None else [*others, (self.last, selectors.EVENT_READ)]
        try:
            self.iteration.act()  # without a callback, which the loop makes some objects for
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as the loop does
            self.iteration.report(error)
        return []

    def _share_out(self, events: list[tuple[int, int]]) -> list[tuple[selectors.SelectorKey, int]]:
        """Give the iteration what it receives; returns what is for the loop."""
        readers, readable = self.iteration.readers, self.iteration.readable
        commands = -1 if self.last is None else self.last.fd
        self.has_commands = self.last is None
        others: list[tuple[selectors.SelectorKey, int]] = []
        for fd, event in events:
            if event == _READ and fd in readers:
                readable.append(fd)
            elif fd == commands:
                self.has_commands = True
            elif (key := self.get_map().get(fd)) is not None:
                ready = (selectors.EVENT_READ if event & ~_WRITE else 0) | (
                    selectors.EVENT_WRITE if event & ~_READ else 0
                )
                others.append((key, ready & key.events))
        return others

    def _poll_base(self, timeout: float | None) -> list[tuple[int, int]]:
        """What epoll would return."""
        return [(key.fd, _AS_EPOLL[ready]) for key, ready in super().select(timeout)]


class _Forwarder(logging.Handler):
    """Sends log records to the parent, which logs them under the same logger name."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.note(
            LogLine(
                name=record.name,
                level=record.levelno,
                text=printable(self.format(record)),
                at=time.monotonic(),
            )
        )


def _failed(error: OSError) -> Message:
    number = errno.EADDRNOTAVAIL if isinstance(error, socket.gaierror) else error.errno
    return Failed(errno=number, text=printable(error.strerror or str(error)))


def _count_descriptors() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(directory))  # noqa: PTH208 - only their number
        except OSError:
            continue
    return 0


def main(commands_fd: int, events_fd: int, watch: OwnerWatch) -> None:
    """Serve until the owner ends."""
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    logging.raiseExceptions = False
    Host(commands_fd, events_fd, watch).run()
