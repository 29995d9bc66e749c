"""Kills test processes, and server processes, at random moments."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import left
import life
import psutil
from accounts import in_words, leaks, take_account
from life import Life, Peace
from outcome import Outcome, counted, progress

from sidestage import Server, ServerDied, StartError, StartTimeout
from sidestage.process.pool import pool

SCRIPT = str(Path(life.__file__).resolve())
UP = 60.0  # seconds for a process to boot
WITHIN = 0.3  # seconds after which a process is killed, or less
TOLERATED = 1.0  # seconds that a call may take beyond its time-out, on a busy machine
STUCK = 120.0  # seconds for one step of a life
GROWTH = 8 * 1024  # KiB: deaths and their tracebacks leave the allocator larger than they found it


# The test's process is killed ---------------------------------------------------------------------


def kill_tests(number: int, seed: int) -> Outcome:
    """Kill ``number`` test processes, each at a random moment."""
    dice = random.Random(seed)
    worst, violations = 0.0, []
    doing: Counter[str] = Counter()
    for count in range(number):
        what, seconds, wrong = _kill_one(dice)
        doing[what] += 1
        worst = max(worst, seconds)
        violations += [f"test process {count}, killed at {what!r}: {line}" for line in wrong]
        progress("test processes killed", count + 1, number)
    return Outcome(
        "SIGKILL of a test's process at a random moment of a busy life",
        f"{number:,}",
        f"all gone, processes and ports, after {worst * 1000:.0f} ms at most; {counted(doing)}",
        violations,
    )


def _kill_one(dice: random.Random) -> tuple[str, float, list[str]]:
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as directory:
        notes = Path(directory) / "notes"
        process = subprocess.Popen(
            [sys.executable, SCRIPT, str(dice.randrange(2**32)), str(notes)],
            env=left.environment(mark),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        up = select.select([process.stdout], [], [], UP)[0] and process.stdout.readline()
        time.sleep(dice.uniform(0, WITHIN))
        process.kill()
        status = process.wait()
        process.stdout.close()
        lines = notes.read_text().splitlines() if notes.exists() else []
        ports = {int(line.split()[1]) for line in lines if line.startswith("port ")}
        copies = {int(line.split()[1]) for line in lines if line.startswith("copy ")}
        act = [line for line in lines if not line.startswith(("port ", "copy "))][-1:]
        if act == [life.LOSING]:
            left.end(left.marked(mark))
        seconds, late = left.until_gone(mark, ports, _copies(mark, copies))
    if not up or status != -signal.SIGKILL:
        late.append(f"it had ended by itself, with status {status}")
    return "".join(act), seconds, late


def _copies(mark: str, noted: set[int]) -> set[int]:
    """Include forked copies that were killed before they could record their pid."""
    found = set(noted)
    for pid in left.marked(mark):
        with contextlib.suppress(OSError):
            if SCRIPT.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.add(pid)
    return found


# The processes of servers are killed --------------------------------------------------------------

DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
SIGNALS = (*DEADLY, signal.SIGSTOP)


@dataclass(frozen=True)
class Shot:
    """A signal to a server's process, which began at a time, and whether it was serving."""

    number: signal.Signals
    serving: bool
    began: float = 0.0


class Fire:
    """The judge of a life whose server processes get signals: each must be reported, by name."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.reported: Counter[str] = Counter()
        self.shots: dict[int, Shot] = {}
        self._serving: set[int] = set()
        self._guard = threading.Lock()

    def shoot(self, dice: random.Random, *, serving: bool) -> bool:
        """Send a signal to one of the children; returns whether there was one."""
        with self._guard:  # so that the child cannot start or stop serving here
            candidates = [
                pid
                for pid in _servers()
                if pid not in self.shots and (pid in self._serving or not serving)
            ]
            if not candidates:
                return False
            pid, number = dice.choice(candidates), dice.choice(SIGNALS)
            began = _began(pid)
            if not _send(pid, number):
                return False
            self.shots[pid] = Shot(number, pid in self._serving, began)
            return True

    # The fate -----------------------------------------------------------------------------------

    def does(self, what: str) -> None:
        """Ignore it: a signal may come at any time."""

    def serves(self, server: Any) -> None:
        with self._guard:
            self._serving.add(server.pid)
            shot = self.shots.get(server.pid)
            if shot is not None and _began(server.pid) not in (0.0, shot.began):
                del self.shots[server.pid]  # of another process, which had the same pid

    def leaves(self, server: Any) -> None:
        with self._guard:
            self._serving.discard(server.pid)

    def not_started(self, error: StartError) -> None:
        numbers = {shot.number for shot in self._elsewhere()}
        if isinstance(error, StartTimeout):
            self._expect(signal.SIGSTOP in numbers, f"nothing was stopped, and yet: {error}")
        else:
            named = any(number.name in str(error) for number in numbers)
            self._expect(named, f"a start does not say what the process has died of: {error}")
        self.reported[type(error).__name__] += 1

    def failed(self, server: Any, error: Exception) -> None:
        if isinstance(error, StartError):  # of a restart
            self.not_started(error)
        elif isinstance(error, ServerDied):
            self._named(error)
        else:
            with self._guard:  # the signal is sent before it is noted
                hit = server.pid in self.shots
            self._expect(hit, f"nothing was hit, and yet: {error!r}")

    def stopped(self, server: Any, pid: int, errors: list[BaseException], booms: int) -> None:
        shot = self.shots.get(pid)
        deaths = [error for error in errors if isinstance(error, ServerDied)]
        for error in errors:
            if isinstance(error, ServerDied):
                self._named(error)
            elif not isinstance(error, (life.Boom, ConnectionError)):
                self._expect(False, f"the stop raised {error!r}")
        if shot is None:
            self._expect(len(errors) == booms, f"{errors} were raised, and not {booms} times Boom")
        elif shot.serving and shot.number in DEADLY:
            self._expect(bool(deaths), f"a death by {shot.number.name} is not reported")
        elif shot.serving:
            rung = server.stop_report.rung
            self._expect(rung == "kill", f"a process with SIGSTOP is stopped by {rung!r}")
            self.reported["ForcedStopWarning"] += rung == "kill"

    def _named(self, error: ServerDied) -> None:
        shot = self.shots.get(error.pid)
        name = None if shot is None else shot.number.name
        self._expect(error.signal == name, f"it was {name}, but the error is: {error}")
        self.reported["ServerDied"] += 1

    def _elsewhere(self) -> list[Shot]:
        with self._guard:
            return [shot for shot in self.shots.values() if not shot.serving]

    def _expect(self, fact: bool, otherwise: str) -> None:
        if not fact:
            self.violations.append(otherwise)


def _began(pid: int) -> float:
    """When a process began, in seconds since the epoch; 0.0 if it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def kill_servers(number: int, seed: int) -> Outcome:
    """Send signals to ``number`` server processes while their life goes on here."""
    Server._sync_seconds = life.SYNC
    peace = Life(seed, Peace(lambda line: None), leave_copies=False)
    for _ in range(60):
        peace.step()
    pool.close()
    before = take_account()
    fire, dice = Fire(), random.Random(seed)
    gun = threading.Thread(target=_shoot, args=[fire, dice, number])
    hard = Life(seed + 1, fire, leave_copies=False)
    gun.start()
    while gun.is_alive():
        faulthandler.dump_traceback_later(STUCK, exit=True)
        hard.step()
    faulthandler.cancel_dump_traceback_later()
    gun.join()
    pool.close()
    account = take_account(before, GROWTH)
    name, worst = max(hard.calls.overruns.items(), key=lambda item: item[1])
    late = [
        f"{call} took {overrun:.2f} s more than its time-out"
        for call, overrun in hard.calls.overruns.items()
        if overrun > TOLERATED
    ]
    return Outcome(
        "SIGKILL, SIGSEGV, SIGABRT or SIGSTOP for a server's process at a random moment",
        f"{number:,}",
        f"of {hard.calls.number:,} calls the latest ({name}) ended "
        f"{max(0.0, worst) * 1000:.0f} ms after its time-out; {counted(fire.reported)}; "
        f"{in_words(account, before)}",
        fire.violations + late + leaks(account, before, GROWTH),
    )


def _shoot(fire: Fire, dice: random.Random, number: int) -> None:
    for count in range(number):
        serving = dice.random() < 0.7  # else one that starts, stops or is in the pool
        time.sleep(dice.uniform(0, 0.1))
        while not fire.shoot(dice, serving=serving):
            time.sleep(dice.uniform(0, 0.03))
        progress("signals to servers", count + 1, number)


def _servers() -> list[int]:
    """The children of this process in which servers run."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if b"sidestage.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def _send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a child of this process, never to another process with its old pid."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in _servers():
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
