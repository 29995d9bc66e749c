"""The child's own life: up, configured, serving, stopped clean and ready for the next, gone.

One asyncio loop, one service at a time. It runs none of the user's code, and it ends when the
pipe from its owner ends. A stop gives the process back only when it can show that nothing of
the last server is left: no descriptor, no task, no timer.
"""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import importlib
import logging
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, get_args

from ..pristine.socketfile import SocketFile
from ..wire.frames import ReadSize, WireError, commands
from ..wire.messages import (
    WIRE_VERSION,
    Address,
    Command,
    Configure,
    Draining,
    Failed,
    Handle,
    Hello,
    LogLine,
    Message,
    Postpone,
    Ready,
    Stop,
    Stopped,
    Sync,
    Synced,
)
from . import pipes
from .channel import Outbox
from .net import listener
from .owner_watch import OrphanWatch
from .service import CallCommand, Service

_PROTOCOLS: tuple[str, ...] = ("tcp", "udp", "http", "smtp")
_ROOT = __name__.partition(".")[0]
_logger = logging.getLogger("sidestage.child")

_LOOKOUT_SECONDS = 0.0001  # before the loop sleeps; twice as long makes no difference
_SETTLE_PASSES = 4  # of the loop, for closed transports to let go of their descriptors


class Host:
    """Runs one server after another."""

    def __init__(self, commands_fd: int, events_fd: int, watch: OrphanWatch) -> None:
        selector = _Selector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(selector)
        asyncio.set_event_loop(self.loop)
        self.outbox = Outbox(self.loop, events_fd)
        selector.before = self._pass_ends
        self.service: Service | None = None
        self._watch = watch
        self._buffer = commands()
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
        }
        for kind in get_args(CallCommand):
            self._handlers[kind] = self._call_command
        self._descriptors = 0
        self._defects = 0
        logging.getLogger().addHandler(_Forwarder(self.outbox))

    def run(self) -> None:
        """Serve until the owner closes the pipe."""
        os.set_blocking(self._commands_fd, False)
        self.loop.add_reader(self._commands_fd, self._read)
        self.outbox.send(Hello(pid=os.getpid(), version=WIRE_VERSION))
        self.loop.call_soon(self._preload, [*_PROTOCOLS])
        self._descriptors = _count_descriptors()
        self.loop.run_forever()

    def _pass_ends(self) -> None:
        self.outbox.flush()
        if self.service is not None:
            self.service.pass_ends()

    def _preload(self, protocols: list[str]) -> None:
        """Import the protocols while nothing is asked for, one a pass of the loop."""
        asked = select.select([self._commands_fd], [], [], 0)[0]
        if protocols and not asked and self.service is None and self._task is None:
            service_of(protocols[0])
            self.loop.call_soon(self._preload, protocols[1:])

    def _read(self) -> None:
        try:
            data = os.read(self._commands_fd, self._read_size.bytes)
        except BlockingIOError:
            return
        if not data:
            self._end()
        if self._read_size.got(len(data)):
            pipes.enlarge(self._commands_fd)
        try:
            messages = self._buffer.feed(data)
        except WireError as error:
            sys.stderr.write(f"the pipe from the owner broke: {error}\n")
            self._end(1)
        for message in messages:
            self._take(message)

    def _take(self, message: Command) -> None:
        try:
            self._handlers[type(message)](message)
        except Exception:
            # A defect here must not cost the commands behind it; nor is it forgotten.
            self._defects += 1
            _logger.exception("the command %r failed", type(message).__name__)

    def _end(self, status: int = 0) -> NoReturn:
        """Leave nothing behind but the exit status."""
        if self.service is not None:
            self.service.close_listeners()
        self._remove_file()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Commands ----------------------------------------------------------------------------------

    def _call_command(self, message: CallCommand) -> None:
        if self.service is not None:
            self.service.command(message)

    def _postpone(self, message: Postpone) -> None:
        if self.service is not None:
            self.service.postponed(message.token, wanted=message.wanted)

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
        service = service_of(config.protocol)(self.loop, self.outbox, config)
        sockets = listener.bind(config)
        if config.path is not None and not config.path.startswith("\0"):
            self._file = SocketFile(os.path.join(config.cwd or "/", config.path))  # noqa: PTH118 - as the kernel has it
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
            unfinished = await service.drain(message.drain, message.spare, self._announce)
        self._remove_file()
        self.service = None
        self._watch.interval = 0.5
        why = await self._leftovers()
        self._task = None
        self.outbox.send(Stopped(clean=not why, open=unfinished, why=why))

    def _announce(self) -> None:
        self.outbox.send(Draining())

    # What is left ------------------------------------------------------------------------------

    async def _leftovers(self) -> str:
        """What of the last server is still there, as text; empty when nothing is."""
        why = f"{self._defects} commands have failed"
        if self._defects:
            return why
        for _ in range(_SETTLE_PASSES):
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
    """Has something done whenever the loop is about to wait: once at the end of each pass.

    What a server waits for mostly comes in a moment: the handler's answer, the client's next
    request. To sleep and to be woken takes longer than that, on a virtual machine most of all, so
    it keeps looking for a while, and leaves the processor to anybody who wants it meanwhile.
    """

    before: Callable[[], None] = staticmethod(lambda: None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.before()
        if timeout is None or timeout > _LOOKOUT_SECONDS:
            end = time.perf_counter() + _LOOKOUT_SECONDS
            while time.perf_counter() < end:
                if events := super().select(0):
                    return events
                os.sched_yield()
        return super().select(timeout)


class _Forwarder(logging.Handler):
    """Sends log records to the parent, which gives them to the logger of the same name."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.send(LogLine(name=record.name, level=record.levelno, text=self.format(record)))


def _failed(error: OSError) -> Message:
    if isinstance(error, socket.gaierror):
        return Failed(errno=errno.EADDRNOTAVAIL, text=error.strerror or str(error))
    return Failed(errno=error.errno, text=error.strerror or str(error))


def _count_descriptors() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(directory))  # noqa: PTH208 - a count, no paths
        except OSError:
            continue
    return 0


def service_of(protocol: str) -> type[Service]:
    """The service of a protocol, which is in the folder of that name."""
    module = importlib.import_module(f"{_ROOT}.protocols.{protocol}.child.service")
    service: type[Service] = module.SERVICE
    return service


def main(commands_fd: int, events_fd: int, watch: OrphanWatch) -> None:
    """Serve what the owner asks for until it is gone."""
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    logging.raiseExceptions = False
    Host(commands_fd, events_fd, watch).run()
