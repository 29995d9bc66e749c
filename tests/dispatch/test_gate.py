"""Where idle handler threads wait: whoever is woken, and that waking never blocks."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sidestage.dispatch import threads
from sidestage.dispatch.gate import EpollGate, LockGate

GATES = [EpollGate, LockGate]


@pytest.fixture(params=GATES, ids=lambda gate: gate.__name__)
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    monkeypatch.setattr(threads, "make_gate", request.param)
    kind: type[Any] = request.param
    return kind


class TestGate:
    def test_waking_without_a_waiter_never_blocks(self, gate: type[Any]) -> None:
        reader, writer = os.pipe()
        it = gate(reader)
        for _ in range(70_000):  # more than a pipe takes
            it.wake()
        it.wait()
        it.close()
        os.close(reader)
        os.close(writer)
