"""What is kept with pytest's items: their servers, and the test as the journal knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..journal.causes import Cause, Test

if TYPE_CHECKING:
    from .. import Server

SERVERS = pytest.StashKey[list["Server[Any]"]]()  # of modules and the session, too
TEST = pytest.StashKey[Test]()
TOLD = pytest.StashKey[list[Cause]]()  # what this phase has raised, or noted on its error


def note(node: pytest.Item, server: Server[Any]) -> None:
    """From now on, what the server's handlers raise fails the tests of ``node``."""
    node.stash.setdefault(SERVERS, []).append(server)
