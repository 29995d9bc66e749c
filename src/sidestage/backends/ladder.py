"""The stop of a server, rung by rung, under one deadline: ask, close, terminate, kill, sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dispatch import leaving
from ..journal.facts import OpenConnection, Rung, StopReport
from ..pristine import system, waits
from ..pristine.waits import Deadline
from ..process.pool import END_SECONDS, enabled, end, pool

if TYPE_CHECKING:
    from ..dispatch.run import Run


class Rungs:
    """Up to which part of a stop's time each rung may take."""

    __slots__ = ("ask", "close", "drain", "terminate")

    def __init__(
        self,
        drain: float = 0.75,
        ask: float = 0.8,
        close: float = 0.87,
        terminate: float = 0.94,
    ) -> None:
        self.drain, self.ask, self.close, self.terminate = drain, ask, close, terminate


RUNGS = Rungs()
# From the end of the drain to that of the rung: four context switches, on a busy machine. Of a
# stop shorter than a second it is that part.
_ANSWER_SECONDS = 0.3
_REAP_SECONDS = 5.0  # after SIGKILL, which takes a process of ours a millisecond

# The exit status of a process that ends because of a rung; None if somebody else has reaped it.
_OUR_DOING: dict[Rung, tuple[int | None, ...]] = {
    "close": (0, None),
    "terminate": (0, None, -system.signals.SIGTERM),
}


class Ladder:
    """One stop, rung by rung, under one deadline."""

    def __init__(
        self, run: Run, seconds: float, rungs: Rungs | None = None, *, reuse: bool = True
    ) -> None:
        self._run = run
        self._rungs = rungs = RUNGS if rungs is None else rungs
        self._reuse = reuse  # the child may go back to the pool
        self._process = run.child.process
        self._seconds = seconds
        self._began = waits.Clock.monotonic()
        self._deadline = Deadline(seconds)
        self._ask = Deadline(seconds * rungs.ask)
        self._stderr_start = 0
        self._asked = True

    def ask(self) -> None:
        """The first rung, without waiting for it."""
        run = self._run
        if run.death is None:
            answer = _ANSWER_SECONDS * min(self._seconds, 1.0)
            drain = self._seconds * self._rungs.drain
            drain = min(drain, self._seconds * self._rungs.ask - answer)
            self._asked = run.ask_to_stop(drain, self._ask, ahead=self._reuse)
        self._reuse = self._reuse and enabled()  # only now: the child is stopping meanwhile

    def climb(self) -> StopReport:
        """Climb until the child is back in the pool, or has ended and is reaped."""
        run = self._run
        if run.death is None:
            if self._asked:
                run.reader.wait_until(run.has_stopped, self._ask)
            if run.stopped is not None:
                leaving.settle(run, self._ask)
        open_now = self._open_connections()
        run.detach(self._deadline)
        if run.stopped is not None:
            reuse = self._reuse and run.stopped.clean and run.retire(self._deadline)
            if reuse and run.claim("returned"):
                pool.release(run.child, self._deadline, wanted=True)
            else:
                end([run.child], self._deadline.sooner(END_SECONDS).left())
            return self._reported("ask", open_now)
        if run.death is None and run.reader.connected and self._process.wait(Deadline(0.0)):
            run.note_death()  # it had died, and there was no time to read that
        if run.death is not None or not run.reader.connected:
            return self._bury(open_now)
        return self._force(open_now)

    def _bury(self, open_now: tuple[OpenConnection, ...]) -> StopReport:
        if not self._process.wait(self._deadline):
            self._process.kill()
        end([self._run.child], self._deadline.sooner(END_SECONDS).left())
        return self._reported("died", open_now)

    def _force(self, open_now: tuple[OpenConnection, ...]) -> StopReport:
        process = self._process
        # This comes at once, unless /proc is hidden from us.
        process.snapshot(self._rung(self._rungs.terminate))
        self._stderr_start = process.stderr_size()
        process.signal(system.signals.SIGUSR1)  # faulthandler writes where every thread is
        rung: Rung = "close"
        self._run.child.channel.closed = True  # first: nobody may write to a reused descriptor
        process.close_commands()
        if not process.wait(self._rung(self._rungs.close)):
            # Where we may not signal it, it ends by itself, as its pipe is closed.
            if process.terminate():
                rung = "terminate"
            if not process.wait(self._rung(self._rungs.terminate)):
                if process.kill():
                    rung = "kill"
                process.wait(Deadline(_REAP_SECONDS))
        swept = tuple(process.sweep())
        stack = process.stderr_tail(self._stderr_start) or None
        process.close()
        if rung in _OUR_DOING and process.exit_code not in _OUR_DOING[rung]:
            self._run.note_death()  # something else was quicker
            rung = "died"
        return self._reported(rung, open_now, stack, swept)

    def _reported(
        self,
        rung: Rung,
        connections: tuple[OpenConnection, ...],
        stack: str | None = None,
        swept: tuple[int, ...] = (),
    ) -> StopReport:
        return StopReport(
            rung=rung,
            seconds=waits.Clock.monotonic() - self._began,
            connections=connections,
            stack=stack,
            swept=swept,
            running=leaving.settle_all(self._run, self._deadline),
        )

    def _open_connections(self) -> tuple[OpenConnection, ...]:
        reported = self._run.stopped.open if self._run.stopped is not None else []
        unfinished = self._run.unfinished()
        if not reported and not unfinished:
            return ()
        known = {entry.call for entry in reported}
        mine = self._run.current_call()
        found = [
            OpenConnection(client_address=entry.client_address, state=entry.state)
            for entry in reported
        ]
        found += [
            OpenConnection(
                client_address=call.client_address,
                state=f"{call.describe()}: handler running",
            )
            for call in unfinished
            if call.id not in known and call.id != mine
        ]
        return tuple(found)

    def _rung(self, part: float) -> Deadline:
        """The deadline of one rung: a part of the whole time, counted from its beginning."""
        spent = waits.Clock.monotonic() - self._began
        return Deadline(max(0.0, self._seconds * part - spent))
