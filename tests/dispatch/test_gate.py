"""Where idle handler threads wait."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sidestage.dispatch.gate import EpollGate, LockGate


@pytest.mark.parametrize("kind", [EpollGate, LockGate])
def test_waking_without_a_waiter_never_blocks(kind: type[Any]) -> None:
    reader, writer = os.pipe()
    gate = kind(reader)
    for _ in range(70_000):  # more than a pipe takes
        gate.wake()
    gate.wait()
    gate.close()
    os.close(reader)
    os.close(writer)
