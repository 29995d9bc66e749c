"""The life of a server process: boot, configure, serve, stop, and serve the next server.

It has one asyncio loop and one service at a time. It runs none of the user's code, and it ends when
the pipe from its owner ends. After a stop, the process is reused only if no descriptor and no task
of the last server is left.
"""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import itertools
import logging
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ..pristine.socketfile import SocketFile
from ..wire.frames import FrameBuffer, ReadSize, WireError, unpack
from ..wire.messages import (
    COMMANDS,
    WIRE_VERSION,
    Address,
    Configure,
    Draining,
    Failed,
    Handle,
    Hello,
    Idle,
    LogLine,
    Message,
    Postpone,
    Ready,
    Stop,
    Stopped,
    Sync,
    Synced,
)
from .channel import Outbox, enlarge
from .net import listener
from .owner_watch import OwnerWatch
from .service import Service, protocols, service_of

_logger = logging.getLogger("sidestage.child")

_SPIN_SECONDS = 0.0001  # polling before the loop sleeps; doubling it makes no difference
_SETTLE_ITERATIONS = 4  # of the loop, until closed transports have closed their descriptors


class Host:
    """Runs one server after another."""

    def __init__(self, commands_fd: int, events_fd: int, watch: OwnerWatch) -> None:
        selector = _Selector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(selector)
        asyncio.set_event_loop(self.loop)
        self.outbox = Outbox(self.loop, events_fd)
        selector.before = self._iteration_ends
        self.service: Service | None = None
        self._watch = watch
        self._buffer = FrameBuffer(COMMANDS)
        self._read_size = ReadSize()
        self._commands_fd = commands_fd
        self._file: SocketFile | None = None
        self._task: asyncio.Task[None] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Configure: self._configure,
            Handle: self._handle,
            Sync: lambda message: self.outbox.send(Synced(token=message.token)),
            Stop: self._begin_stop,
            Postpone: self._postpone,
            Idle: self._idle,
        }
        self._descriptors = 0
        self._defects = 0
        logging.getLogger().addHandler(_Forwarder(self.outbox))

    def run(self) -> None:
        """Serve until the owner closes the pipe."""
        os.set_blocking(self._commands_fd, False)
        self.loop.add_reader(self._commands_fd, self._read)
        self.outbox.send(Hello(pid=os.getpid(), version=WIRE_VERSION))
        self.loop.call_soon(self._preload, protocols())
        self._descriptors = _count_descriptors()
        self.loop.run_forever()

    def _iteration_ends(self) -> None:
        self.outbox.flush()
        if self.service is not None:
            self.service.iteration_ends()

    def _preload(self, names: Iterator[str]) -> None:
        """Import one protocol per iteration of the loop, until the first command comes."""
        asked = select.select([self._commands_fd], [], [], 0)[0]
        if not asked and self.service is None and self._task is None:
            for name in itertools.islice(names, 1):
                self._buffer.learn(service_of(name).vocabulary.commands)
                self.loop.call_soon(self._preload, names)

    def _read(self) -> None:
        try:
            data = os.read(self._commands_fd, self._read_size.bytes)
        except BlockingIOError:
            return
        if not data:
            self._end()
        if self._read_size.got(len(data)):
            enlarge(self._commands_fd)
        try:
            messages = self._buffer.feed(data)
        except WireError as error:
            sys.stderr.write(f"the pipe from the owner broke: {error}\n")
            self._end(1)
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        try:
            self._handlers.get(type(message), self._call_command)(message)
        except Exception:
            # Go on with the next command, but do not reuse this process (see _leftovers).
            self._defects += 1
            _logger.exception("the command %r failed", type(message).__name__)

    def _end(self, status: int = 0) -> NoReturn:
        """Close the listeners, remove the socket's file and exit with ``status``."""
        if self.service is not None:
            self.service.close_listeners()
        self._remove_file()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Commands ----------------------------------------------------------------------------------

    def _call_command(self, message: Message) -> None:
        if self.service is not None:
            self.service.command(message)

    def _postpone(self, message: Postpone) -> None:
        if self.service is not None:
            self.service.calls.postponed(message.token, wanted=message.wanted)

    def _idle(self, message: Idle) -> None:
        if self.service is not None:
            self.service.idle()

    def _handle(self, message: Handle) -> None:
        if self.service is not None:
            self.service.handled = message.on
        self.outbox.send(Synced(token=message.token))

    def _configure(self, config: Configure) -> None:
        self._watch.interval = config.poll_interval
        self.outbox.limit = config.keep
        try:
            addresses = self._serve(config)
        except OSError as error:
            self.outbox.send(_failed(error))
        except Exception as error:
            _logger.exception("the configuration %r failed", config)
            self.outbox.send(Failed(errno=None, text=f"{type(error).__name__}: {error}"))
        else:
            self.outbox.send(Ready(addresses=addresses))

    def _serve(self, config: Configure) -> list[Address]:
        kind = service_of(config.protocol, config._outside)
        self._buffer.learn(kind.vocabulary.commands)
        settings = unpack(kind.vocabulary.settings, config.settings)
        service = kind(self.loop, self.outbox, config, settings)
        sockets = listener.bind(config, kind.socket_kind)
        if config.path is not None and not config.path.startswith("\0"):
            self._file = SocketFile(os.path.join(config.cwd or "/", config.path))  # noqa: PTH118 - exactly as bound
        self.service = service
        service.serve(sockets)
        return [listener.bound_address(sock) for sock in sockets]

    def _begin_stop(self, message: Stop) -> None:
        self._task = self.loop.create_task(self._stop(message))

    async def _stop(self, message: Stop) -> None:
        service = self.service
        unfinished = []
        if service is not None:
            service.finished = message.finished
            unfinished = await service.drain(message.drain, message.caller, self._announce)
        self._remove_file()
        self.service = None
        self._watch.interval = 0.5
        why = await self._leftovers()
        self._task = None
        self.outbox.send(Stopped(clean=not why, open=unfinished, why=why))

    def _announce(self, waits: bool) -> None:
        self.outbox.send(Draining(waits=waits))

    # Leftovers ---------------------------------------------------------------------------------

    async def _leftovers(self) -> str:
        """Describe what is left of the last server; empty if the process can be reused."""
        why = f"{self._defects} commands have failed"
        if self._defects:
            return why
        for _ in range(_SETTLE_ITERATIONS):
            tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
            open_now = _count_descriptors()
            if not tasks and open_now <= self._descriptors:
                return ""
            why = f"{len(tasks)} tasks and {open_now - self._descriptors} descriptors are left"
            await asyncio.sleep(0)
        return why

    def _remove_file(self) -> None:
        if self._file is not None:
            self._file.remove()
            self._file = None


class _Selector(selectors.DefaultSelector):
    """Calls ``before`` at the end of each iteration, when the loop is about to wait.

    It polls for a moment before it sleeps: the handler's answer or the client's next request
    usually comes sooner than the kernel can wake a sleeping process, above all on a virtual
    machine. While it polls, it yields the CPU to other processes.
    """

    before: Callable[[], None] = staticmethod(lambda: None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.before()
        if timeout is None or timeout > _SPIN_SECONDS:
            end = time.perf_counter() + _SPIN_SECONDS
            while time.perf_counter() < end:
                if events := super().select(0):
                    return events
                os.sched_yield()
        return super().select(timeout)


class _Forwarder(logging.Handler):
    """Sends log records to the parent, which logs them under the same logger name."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.send(
            LogLine(
                name=record.name,
                level=record.levelno,
                text=self.format(record),
                at=time.monotonic(),
            )
        )


def _failed(error: OSError) -> Message:
    if isinstance(error, socket.gaierror):
        return Failed(errno=errno.EADDRNOTAVAIL, text=error.strerror or str(error))
    return Failed(errno=error.errno, text=error.strerror or str(error))


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
