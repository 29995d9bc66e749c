"""A slot knows which handler was set at a time, and keeps none of them alive."""

from __future__ import annotations

import gc
import weakref

from sidestage.dispatch.slot import Slot
from sidestage.pristine.waits import Clock


def test_the_code_of_the_handler_that_was_set_then() -> None:
    before = Clock.monotonic()
    slot = Slot(None)
    slot.note(first := lambda request: 1)
    between = Clock.monotonic()
    slot.note(second := lambda request: 2)
    assert slot.code_at(before) is None
    assert slot.code_at(between) is first.__code__
    assert slot.code_at(Clock.monotonic()) is second.__code__
    slot.note(None)
    assert slot.code_at(Clock.monotonic()) is None


def test_a_handler_that_was_replaced_is_not_kept() -> None:
    held: list[object] = []
    handler = lambda request: held  # noqa: E731 - a closure
    slot = Slot(handler)
    gone = weakref.ref(handler)
    slot.handler = None
    del handler
    gc.collect()
    assert gone() is None
