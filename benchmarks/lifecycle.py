"""How long servers take to start and to stop: Sidestage's and their peers, in turn."""

from __future__ import annotations

import itertools
import os
import platform
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import contenders
import interpreters
from contenders import Contender

COLD_SHARE = 16  # one cold round to so many warm ones, because each starts a dozen interpreters
SLOW_SHARE = 25  # one warm round in so many for peers that take half a second to stop

IMPORT_TARGET, COLD_TARGET, PLUGIN_TARGET, WARM_TARGET = 25.0, 150.0, 5.0, 2.0  # medians, ms

COLLECTING = (0, 0.2)  # seconds that the import of a test module takes beside Sidestage's


Samples = dict[str, list[float]]  # milliseconds, by what was measured


def figures(rounds: int) -> list[str]:
    """The Markdown tables."""
    lines = [_surroundings(rounds)]
    lines += _cold_table(measure_cold(max(5, rounds // COLD_SHARE)))
    lines += _warm_tables(measure_warm(max(rounds, 2 * SLOW_SHARE)))
    return lines


# Measuring --------------------------------------------------------------------------------------


def measure_cold(rounds: int) -> Samples:
    """Measure everything that needs a new interpreter, in turn."""
    samples: Samples = defaultdict(list)
    dict(_cold_round())  # fills the caches of the disk and of the compiler
    for _ in range(rounds):
        for what, milliseconds in _cold_round():
            samples[what].append(milliseconds)
    return samples


def _cold_round() -> Iterator[tuple[str, float]]:
    yield "bare", interpreters.bare()
    for name, program in interpreters.IMPORTS.items():
        yield name, interpreters.timed(program)[0]
    for name, program in {**interpreters.OURS, **interpreters.PEERS}.items():
        imports, start = interpreters.timed(program)
        yield name, imports + start
        yield f"{name}: import", imports
        yield f"{name}: start", start
    for collecting in COLLECTING:
        yield f"pytest {collecting}", interpreters.first_under_pytest(collecting)


@dataclass
class Warm:
    """The samples of one contender."""

    starts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    tests: list[float] = field(default_factory=list)


def measure_warm(rounds: int) -> dict[Contender, Warm]:
    """Starts, stops and small tests of all contenders, in turn."""
    measured = {contender: Warm() for contender in [*contenders.OURS, *contenders.PEERS]}
    for contender in measured:
        _cycle(contender, request=contender.request is not None)  # the first start is cold
    order, dice = list(measured), random.Random(1)
    for number in range(rounds):
        dice.shuffle(order)  # so that no server always follows the same other one
        for contender in order:
            if not (contender.slow and number % SLOW_SHARE):
                _warm_round(contender, measured[contender])
    return measured


def _warm_round(contender: Contender, warm: Warm) -> None:
    start, _, stop = _cycle(contender, request=False)
    warm.starts.append(start)
    warm.stops.append(stop)
    warm.cycles.append(start + stop)
    if contender.request is not None:
        warm.tests.append(sum(_cycle(contender, request=True)))


def _cycle(contender: Contender, *, request: bool) -> tuple[float, float, float]:
    """The milliseconds of a start, of a request if ``request``, and of the stop."""
    times = [time.perf_counter()]
    with contender.serving() as port:
        times.append(time.perf_counter())
        if request and contender.request is not None:
            contender.request(port)
        times.append(time.perf_counter())
    times.append(time.perf_counter())
    start, serve, stop = ((after - before) * 1000 for before, after in itertools.pairwise(times))
    return start, serve, stop


# Tables -----------------------------------------------------------------------------------------


def _surroundings(rounds: int) -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}; {rounds} rounds; "
        f"load {os.getloadavg()[0]:.1f} at the beginning. All times in milliseconds.\n"
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()


def _cold_table(samples: Samples) -> Iterator[str]:
    yield from _head("cold, each in a fresh process", "median", "p90", *_VERDICT)
    yield _cold_row("interpreter that does nothing, start to exit", samples["bare"])
    for name in interpreters.IMPORTS:
        yield _cold_row(name, samples[name], target=IMPORT_TARGET)
    for name in interpreters.OURS:
        yield _cold_row(f"first start of **{name}**", samples[name], target=COLD_TARGET)
        yield _cold_row("of it, its import", samples[f"{name}: import"])
        yield _cold_row("of it, its `start()`", samples[f"{name}: start"])
    for name, program in interpreters.PEERS.items():
        yield _cold_row(f"first start of {name}", samples[name], ours=samples[program.against])
    for collecting in COLLECTING:
        what = f"`start()` in the first test under pytest, collected for {collecting} s"
        yield _cold_row(what, samples[f"pytest {collecting}"], target=PLUGIN_TARGET)
    yield ""


def _cold_row(
    what: str,
    times: list[float],
    *,
    ours: list[float] | None = None,
    target: float | None = None,
) -> str:
    return _line(what, _median(times), _p90(times), *_verdict(times, ours, target))


def _warm_tables(measured: dict[Contender, Warm]) -> Iterator[str]:
    by_name = {contender.name: warm for contender, warm in measured.items()}
    yield from _head("warm", "start", "stop", "start + stop", "its p90", *_VERDICT)
    for contender, warm in measured.items():
        ours = by_name[contender.against].cycles if contender.against else None
        target = None if contender.against else WARM_TARGET
        yield _line(
            _label(contender),
            _median(warm.starts),
            _median(warm.stops),
            _median(warm.cycles),
            _p90(warm.cycles),
            *_verdict(warm.cycles, ours, target),
        )
    yield ""
    yield from _head("small test: start, one request, stop", "median", "p90", "times ours")
    for contender, warm in measured.items():
        if contender.request is not None:
            ours = by_name[contender.against].tests if contender.against else None
            ratio = _ratio(warm.tests, ours)
            yield _line(_label(contender), _median(warm.tests), _p90(warm.tests), ratio)
    yield ""


def _label(contender: Contender) -> str:
    return contender.name if contender.against else f"**{contender.name}**"


_VERDICT = ("times ours", "target", "holds")


def _verdict(
    times: list[float], ours: list[float] | None, target: float | None
) -> tuple[str, str, str]:
    if target is None:
        return _ratio(times, ours), "", ""
    return "", f"< {target:g}", "yes" if statistics.median(times) < target else "**no**"


def _ratio(times: list[float], ours: list[float] | None) -> str:
    if ours is None:
        return ""
    ratio = statistics.median(times) / statistics.median(ours)
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _median(times: list[float]) -> str:
    return f"{statistics.median(times):.2f}"


def _p90(times: list[float]) -> str:
    return f"{statistics.quantiles(times, n=10, method='inclusive')[-1]:.2f}"


def _head(*cells: str) -> Sequence[str]:
    return _line(*cells), _line("---", *("---:" for _ in cells[1:]))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
