"""What tests of several protocols use."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What handlers wait for that are to take long; set after the test at the latest."""
    event = threading.Event()
    yield event
    event.set()
