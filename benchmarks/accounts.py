"""The resources of a process and its children, compared between two moments to find leaks."""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

GROWTH = 1024  # KiB that a process may grow: allocators round up
SETTLE = 5.0  # seconds until released resources are gone


@dataclass(frozen=True)
class Account:
    """The resources of this process and its children at one moment."""

    descriptors: int
    threads: int
    processes: int
    zombies: int
    files: int
    rss_kib: int
    child_descriptors: int
    child_threads: int
    child_rss_kib: int

    def growth(self, before: Account) -> dict[str, int]:
        """The difference from an earlier account."""
        return {
            field.name: getattr(self, field.name) - getattr(before, field.name)
            for field in fields(self)
        }

    def excess(self, before: Account, growth: int = GROWTH) -> dict[str, int]:
        """The part of the growth that is not allowed."""
        return {
            name: more
            for name, more in self.growth(before).items()
            if more > (growth if name.endswith("rss_kib") else 0)
        }


NAMES = tuple(field.name for field in fields(Account))


def take_account(allowed: Account | None = None, growth: int = GROWTH) -> Account:
    """Take an account; with ``allowed``, first wait up to ``SETTLE`` seconds for leaks to go."""
    deadline = time.monotonic() + SETTLE
    gc.collect()
    account = _account()
    while allowed and account.excess(allowed, growth) and time.monotonic() < deadline:
        time.sleep(0.05)
        account = _account()
    return account


def leaks(account: Account, before: Account, growth: int = GROWTH) -> list[str]:
    """Describe the leaks, one line each."""
    return [
        f"LEAK: {more} {name.replace('_', ' ')} more than before"
        for name, more in account.excess(before, growth).items()
    ]


def in_words(account: Account, before: Account) -> str:
    """Describe the growth in words."""
    growth = account.growth(before)
    rss, child_rss = growth["rss_kib"], growth["child_rss_kib"]
    more = sum(max(0, count) for name, count in growth.items() if not name.endswith("rss_kib"))
    text = (
        f"{more} descriptors, threads, processes, zombies and files more; "
        f"{rss:+,} KiB in the test's process"
    )
    return f"{text}, {child_rss:+,} KiB in the servers'" if account.processes else text


def _account() -> Account:
    this = psutil.Process()
    children = this.children(recursive=True)
    zombies = [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    living = [child for child in children if child not in zombies]
    return Account(
        descriptors=this.num_fds(),
        threads=_threads(this.pid),
        processes=len(living),
        zombies=len(zombies),
        files=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
        rss_kib=_rss(this.pid),
        child_descriptors=sum(child.num_fds() for child in living),
        child_threads=sum(_threads(child.pid) for child in living),
        child_rss_kib=sum(_rss(child.pid) for child in living),
    )


def _threads(pid: int) -> int:
    """Count threads as the kernel does, including those that Python does not know."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _rss(pid: int) -> int:
    """Resident KiB, from smaps_rollup: statm lags behind by what each CPU has cached."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Rss:")[2].split()[0])
