"""The soak: stresses servers, and checks that nothing breaks: ``make soak``.

Starts and stops servers thousands of times; kills test processes, server processes and workers of
pytest-xdist at random moments; keeps all servers busy for minutes. Nothing may leak, hang, get lost
or grow. Exits with status 1 if anything does.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import chaos
import cycles
import load
import pages
import workers
from outcome import Outcome, table


def main() -> int:
    """Run it all, print the table, and return the exit status."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dumps of killed processes
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded.*")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = directory  # it has no other files
        outcomes = [part() for part in _parts(options)]
    figures = table(outcomes, options.seed)
    print(f"\n{figures}\n")
    violations = [line for outcome in outcomes for line in outcome.violations]
    print("\n".join(violations) or "Nothing was left, hung, got lost or grew.")
    if options.write is not None:
        pages.replace(options.write, "figures", figures)
    return 1 if violations else 0


def _parts(options: argparse.Namespace) -> Iterator[Callable[[], Outcome]]:
    if options.cycles:
        yield lambda: cycles.start_and_stop(options.cycles)
    if options.kills:
        yield lambda: chaos.kill_tests(options.kills, options.seed)
        yield lambda: chaos.kill_servers(options.kills, options.seed)
    if options.workers:
        yield lambda: workers.kill_workers(options.workers, options.seed)
    if options.minutes:
        yield lambda: load.keep_busy(options.minutes, options.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=2500, help="of each server (default: 2500)")
    parser.add_argument(
        "--kills", type=int, default=300, help="of tests, and again of servers (default: 300)"
    )
    parser.add_argument("--workers", type=int, default=10, help="to be killed (default: 10)")
    parser.add_argument("--minutes", type=float, default=10, help="of load (default: 10)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures into FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
