"""Fixtures for the tests of the child's connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.connections import Connection


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()
