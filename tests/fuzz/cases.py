"""What all targets share: inputs made from a seed and a number, their checks, and faults.

An input depends on the seed, the target and its number alone, so each can be made again by itself.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

STUCK = 240.0  # seconds for one batch; then the process ends with all its stacks
SLOW = 3.0  # seconds of processor time for one input; most take a thousandth of a second
_SHOWN = 2000  # characters of an error and of an input in a report


class Fault(AssertionError):
    """What was checked does not hold."""


@dataclass(frozen=True)
class Case:
    """One input: bytes in parts, which shrinking may drop.

    ``choices`` is the seed of what else is chosen for it: where it is cut, who answers and how.
    ``expected`` is what must come of it, if the grammar knows.
    """

    parts: tuple[bytes, ...]
    choices: int
    expected: Any = None

    @property
    def data(self) -> bytes:
        """The whole input."""
        return b"".join(self.parts)

    def dice(self) -> random.Random:
        """The source of the other choices, at its beginning."""
        return random.Random(self.choices)


@dataclass
class Failure:
    """A fault that was found, and how to see it again."""

    target: str
    seed: int
    number: int
    error: str
    data: bytes = b""
    context: int = 1  # inputs of the batch, if it needs those before it

    def __str__(self) -> str:
        at = f"--only {self.target} --seed {self.seed} --at {self.number}"
        if self.context > 1:
            at += f" --count {self.context}"
        again = f'again: make fuzz ARGS="{at}"'
        lines = f"{self.target}, input {self.number}: {self.error}", repr(self.data), again
        return "\n  ".join(_shortened(line) for line in lines)


@dataclass
class Result:
    """What a run of one target has done and found; ``growth`` is in KiB."""

    target: str
    inputs: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    growth: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Result) -> list[Failure]:
        """Add what another run of the same target has done; returns its faults of new kinds."""
        self.inputs += other.inputs
        self.seen.update(other.seen)
        for name, more in other.growth.items():
            self.growth[name] = max(more, self.growth.get(name, more))
        known = {_kind(failure.error) for failure in self.failures}
        new = [failure for failure in other.failures if _kind(failure.error) not in known]
        self.failures += new
        return new


class Target:
    """Something that reads bytes, and the oracle for what it does with them."""

    name: str
    what: str  # for the table
    batch = 500  # inputs between two looks at the whole
    whole = False  # it looks at growth, so it runs in one process from its first input to its last
    shrinks = 400  # times that a smaller input is tried for one that fails

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()  # what came of the inputs
        self.growth: dict[str, int] = {}  # KiB

    def make(self, dice: random.Random) -> Case:
        """Make an input."""
        raise NotImplementedError

    def check(self, case: Case) -> None:
        """Feed it, and raise Fault, or whatever was raised, if something is wrong."""
        raise NotImplementedError

    def begin(self) -> None:
        """Prepare the target, before the first batch."""

    def begin_batch(self) -> None:
        """Prepare a batch."""

    def end_batch(self) -> None:
        """Look at the whole: raises Fault."""

    def end(self) -> None:
        """Release what ``begin`` has made."""


def case_at(target: Target, seed: int, number: int) -> Case:
    """The input with this number."""
    return target.make(random.Random(f"{seed} {target.name} {number}"))


def run(target: Target, seed: int, numbers: range, *, enough: int = 5) -> Result:
    """Feed the inputs with these numbers, until ``enough`` different faults are found."""
    result = Result(target.name)
    kinds: set[str] = set()
    logging.disable(1 << 64)  # servers log what clients do wrong, and hostile ones at any level
    target.begin()
    try:
        for batch in _batches(numbers, target.batch):
            faulthandler.dump_traceback_later(STUCK, exit=True)
            _run_batch(target, seed, batch, result, kinds)
            if len(kinds) >= enough:
                break
    finally:
        faulthandler.cancel_dump_traceback_later()
        target.end()
        logging.disable(logging.NOTSET)
    result.seen, result.growth = target.seen, target.growth
    return result


def _batches(numbers: range, size: int) -> Iterator[range]:
    for at in range(0, len(numbers), size):
        yield numbers[at : at + size]


def _run_batch(target: Target, seed: int, batch: range, result: Result, kinds: set[str]) -> None:
    target.begin_batch()
    for number in batch:
        case = case_at(target, seed, number)
        began = time.process_time()
        error = _failure(target.check, case)
        if not error and (seconds := time.process_time() - began) > SLOW:
            error = f"slow: {seconds:.1f} s of processor time for {len(case.data)} bytes"
        result.inputs += 1
        if error.startswith("slow") and _is_new(error, kinds):
            result.failures.append(Failure(target.name, seed, number, error, case.data))
        elif error and _is_new(error, kinds):
            small = _shrunk(target, case, error)
            result.failures.append(Failure(target.name, seed, number, error, small.data))
    error = _failure(lambda _: target.end_batch(), None)
    if error and _is_new(error, kinds):
        result.failures.append(Failure(target.name, seed, batch.start, error, context=len(batch)))


def _is_new(error: str, kinds: set[str]) -> bool:
    if (kind := _kind(error)) in kinds:
        return False
    kinds.add(kind)
    return True


def _failure(check: Callable[[Any], None], argument: Any) -> str:
    """What is wrong; empty if nothing is."""
    try:
        check(argument)
    except Fault as fault:
        return str(fault) or "Fault"
    except Exception as error:  # noqa: BLE001 - to find them is what this is for
        last = traceback.extract_tb(error.__traceback__)[-6:]
        where = "".join(f"\n    {frame.filename}:{frame.lineno} {frame.name}" for frame in last)
        return f"{type(error).__name__}: {error}{where}"
    return ""


# Smaller inputs ----------------------------------------------------------------------------------


def _shrunk(target: Target, case: Case, error: str) -> Case:
    """A smaller input that fails in the same way, if one is found soon."""
    if case.expected is not None or not target.shrinks:
        return case  # what is expected of less is not known
    wanted, left = _kind(error), [target.shrinks]

    def fails(smaller: Case) -> bool:
        left[0] -= 1
        return left[0] >= 0 and _kind(_failure(target.check, smaller)) == wanted

    case = _with_fewer_parts(case, fails)
    if left[0] > 0:
        pieces = _pieces(case.data, max(1, len(case.data) // 64))
        case = _with_fewer_parts(replace(case, parts=pieces), fails)
    return case


def _with_fewer_parts(case: Case, fails: Callable[[Case], bool]) -> Case:
    size = max(1, len(case.parts) // 2)
    while True:
        at = 0
        while at < len(case.parts):
            smaller = replace(case, parts=case.parts[:at] + case.parts[at + size :])
            if fails(smaller):
                case = smaller
            else:
                at += size
        if size == 1:
            return case
        size //= 2


def _shortened(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]} ... {len(text) - _SHOWN} more"


def _kind(error: str) -> str:
    """The beginning of an error without its numbers, to tell faults apart."""
    return "".join(c for c in error.partition("\n")[0].partition(": ")[0] if not c.isdigit())


def _pieces(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


# Cuts --------------------------------------------------------------------------------------------


def byte_by_byte(data: bytes) -> list[bytes]:
    """The input cut at every byte."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, dice: random.Random, most: int = 6) -> list[bytes]:
    """The input cut at some bytes."""
    ends = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(1, most)))
    return _between(data, [0, *ends, len(data)])


def _between(data: bytes, ends: Iterable[int]) -> list[bytes]:
    pieces = (data[a:b] for a, b in itertools.pairwise(ends))
    return [piece for piece in pieces if piece]
