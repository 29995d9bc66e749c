"""Runs the targets in several processes, and reports: ``make fuzz``.

Exits with status 1 if a fault was found. A run is bounded by its number of inputs; the same seed
makes the same inputs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path

from fuzz.cases import Failure, Result, run
from fuzz.targets import TARGETS, inputs_of

BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"
_INPUTS = 1_000_000
_TASK = 5000  # inputs of one task


def main() -> int:
    """Run what was asked for, print the table, and return the exit status."""
    options = _options()
    _say(f"seed {options.seed}")
    began = time.monotonic()
    results = {name: Result(name) for name in options.only}
    for result in _run_all(options):
        for failure in results[result.target].add(result):
            _say(f"\n{failure}")
    failed = sum(len(result.failures) for result in results.values())
    figures = "\n".join(_table(results.values(), options.seed, time.monotonic() - began))
    _say(f"\n{figures}\n\n{failed or 'No'} faults")
    if options.write is not None:
        _replace_figures(options.write, figures)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="make fuzz")
    parser.add_argument("--inputs", type=int, default=_INPUTS, help=f"default: {_INPUTS:,}")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--only", type=_names, default=list(TARGETS), help=f"some of {', '.join(TARGETS)}"
    )
    parser.add_argument("--at", type=int, help="the number of the first input, of one target")
    parser.add_argument("--count", type=int, default=1, help="of inputs from there (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures into FILE")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - TARGETS.keys():
        raise argparse.ArgumentTypeError(f"no such target: {', '.join(sorted(unknown))}")
    return names


# Tasks -------------------------------------------------------------------------------------------


def _run_all(options: argparse.Namespace) -> Iterator[Result]:
    """The results of all tasks, as they come."""
    if options.at is not None:
        numbers = range(options.at, options.at + options.count)
        yield from (_run(name, options.seed, numbers) for name in options.only)
        return
    tasks = [task for name in options.only for task in _tasks(name, options)]
    done = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        waiting = {
            pool.submit(_run, name, options.seed, part): (name, part) for name, part in tasks
        }
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                result = _result(future, *waiting.pop(future), options.seed)
                before, done = done, done + result.inputs
                if done * 10 // options.inputs > before * 10 // options.inputs:
                    _say(f"{done:,} inputs")
                yield result


def _tasks(name: str, options: argparse.Namespace) -> Iterator[tuple[str, range]]:
    numbers = range(inputs_of(name, options.inputs))
    size = len(numbers) if TARGETS[name].make().whole else _TASK
    for at in range(0, len(numbers), size):
        yield name, numbers[at : at + size]


def _run(name: str, seed: int, numbers: range) -> Result:
    return run(TARGETS[name].make(), seed, numbers)


def _result(future: Future[Result], name: str, numbers: range, seed: int) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        error = "the process of this run has died or hung, or another has: see its stacks above"
        failure = Failure(name, seed, numbers.start, error, context=len(numbers))
        return Result(name, failures=[failure])


# The table ---------------------------------------------------------------------------------------


def _table(results: Iterable[Result], seed: int, seconds: float) -> Iterator[str]:
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}; seed {seed}; "
        f"{seconds / 60:.0f} minutes.\n"
    )
    yield "| target | inputs | what came of them | faults |"
    yield "| --- | ---: | --- | ---: |"
    total = faults = 0
    for result in results:
        total += result.inputs
        faults += len(result.failures)
        yield _line(result.target, result.inputs, _came(result), len(result.failures))
    yield _line("all", total, "", faults)


def _line(name: str, inputs: int, came: str, faults: int) -> str:
    what = f"{name}: {TARGETS[name].make().what}" if name in TARGETS else name
    return f"| {what} | {inputs:,} | {came} | {f'**{faults}**' if faults else '0'} |"


def _came(result: Result) -> str:
    words = [f"{what} {count:,}" for what, count in result.seen.most_common()]
    if result.growth:
        test, child = result.growth["test_kib"], result.growth["child_kib"]
        words.append(f"at most {test:+,} KiB in the test's process, {child:+,} KiB in the server's")
    return ", ".join(words)


def _cpu() -> str:
    """The CPU's model, or the architecture if the kernel does not report it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()


def _replace_figures(path: Path, figures: str) -> None:
    before, _, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{path} lacks the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
