"""A backend that serves UDP from a thread of the test's own process.

It shows what a backend needs that is not a child process: nothing here knows a process, a pipe or
a call that only Unix has.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import itertools
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sidestage import UDPServer
from sidestage.backends.base import Limits, Plan
from sidestage.errors import ServerDied, ServerStopped, StartError, StateError
from sidestage.journal.facts import OpenNow, StopReport
from sidestage.journal.stats import ServerStats
from sidestage.pristine.waits import Clock, Deadline, Wakeup
from sidestage.protocols.udp.messages import Packet, SendTo

if TYPE_CHECKING:
    from sidestage.dispatch.calls import Call, Protocol
    from sidestage.dispatch.run import Run


class ThreadRun:
    """What a call of a handler uses of its run, and no more."""

    def __init__(self, plan: Plan, bound: socket.socket) -> None:
        self.slot = plan.slot
        self.journal = plan.journal
        self.label = plan.label
        self.context = contextvars.copy_context()
        self.stopping = False
        self.ended = False
        self._socket = bound

    def send(self, message: SendTo) -> None:
        if self.ended:
            raise ServerStopped(f"{self.label} has stopped, so its clients are gone")
        self._socket.sendto(message.data, message.address)

    def close_call(self, call: Call) -> None: ...

    def hold(self, size: int, most: int) -> bool:
        return True  # one datagram at a time


class ThreadBackend:
    """One run of a UDP server in a thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._protocol: Protocol | None = None
        self._socket: socket.socket | None = None
        self._run: ThreadRun | None = None
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._seconds = 0.0
        self._handled = plan.slot.handler is not None
        self._changed = Wakeup()
        self.death: ServerDied | None = None

    @property
    def pid(self) -> int | None:
        return None

    # Start ---------------------------------------------------------------------------------------

    def begin(self, deadline: Deadline) -> None:
        self._protocol = importlib.import_module(self._plan.call_module).PROTOCOL
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(5.0)

    def finish(self, deadline: Deadline) -> list[Any]:
        plan, bound = self._plan, self._socket
        assert bound is not None
        try:
            bound.bind((plan.host, plan.port))
        except OSError as error:
            text = f"{plan.label.title()} cannot listen on {plan.asked!r}: {error.strerror}"
            raise StartError(error.errno, text, address=plan.asked) from error
        self._run = ThreadRun(plan, bound)
        self._thread = threading.Thread(target=self._serve, args=(bound, self._run))
        self._thread.start()
        return [bound.getsockname()]

    def _serve(self, bound: socket.socket, run: ThreadRun) -> None:
        assert self._protocol is not None
        for number in itertools.count(1):
            data, peer = _received(bound)
            if run.stopping:
                break
            if peer is None:
                continue
            message = Packet(
                call=number if self._handled else 0,
                listener=0,
                peer=peer,
                at=Clock.monotonic(),
                data=data,
            )
            call = self._protocol.open(cast("Run", run), message, run.journal)
            if call is not None:
                call()
            self._changed.notify()

    # Stop ----------------------------------------------------------------------------------------

    def ask(self, seconds: float) -> None:
        self._began, self._seconds = Clock.monotonic(), seconds
        run, bound = self._run, self._socket
        assert run is not None
        assert bound is not None
        run.stopping = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", bound.getsockname())  # wakes the thread, on any platform

    def end(self) -> StopReport:
        thread = self._thread
        assert thread is not None
        if thread is not threading.current_thread():  # a handler may stop its server
            thread.join(self._seconds)
        self._close()
        return StopReport(rung="ask", seconds=Clock.monotonic() - self._began)

    def abandon(self) -> None:
        if self._run is not None and not self._run.stopping:
            self.ask(0.0)
        self._close()

    def _close(self) -> None:
        if self._run is not None:
            self._run.ended = True
        if self._socket is not None:
            self._socket.close()
        self._socket = self._run = None
        self._changed.notify()

    # While it serves -----------------------------------------------------------------------------

    def sync(self, deadline: Deadline) -> None:
        """Do nothing: a record is in the journal as soon as the datagram is read."""

    def catch_up(self, deadline: Deadline) -> None:
        """Do nothing: the datagram is read before it is answered."""

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        self._changed.wait_until(lambda: condition() or self._run is None, deadline)
        return condition()

    def wake(self) -> None:
        self._changed.notify()

    def under_way(self) -> list[str]:
        return []

    def handle(self, on: bool, deadline: Deadline) -> None:
        self._handled = on

    def change(self, limits: Limits, deadline: Deadline) -> None:
        """Do nothing: it tells no client that time is over."""

    def in_handler(self) -> bool:
        return threading.current_thread() is self._thread

    def facts(self) -> ServerStats:
        raise StateError(f"{self._plan.label} has no process")

    def open_now(self, deadline: Deadline) -> OpenNow:
        return OpenNow()

    def stderr_tail(self) -> str:
        return ""


def _received(bound: socket.socket) -> tuple[bytes, Any]:
    """A datagram and its sender; ``None`` for that if the socket is closed or nothing came."""
    with contextlib.suppress(OSError):
        return bound.recvfrom(65536)
    return b"", None


class ThreadUDPServer(UDPServer):
    """A UDP server without a process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._make_backend = ThreadBackend
