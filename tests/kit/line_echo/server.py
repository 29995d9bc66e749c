"""The line-echo server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidestage.server.server import Server

from .call import Line

if TYPE_CHECKING:
    from typing import Unpack

    from sidestage.server.settings import Options

TESTS = Path(__file__).resolve().parent.parent.parent


class LineEchoServer(Server[Line]):
    """Answers each line with what the handler returns for it, without one with the same line.

    A line may have ``longest`` bytes; a client that sends more is disconnected.
    """

    protocol = "line_echo"
    scheme = "line-echo"
    _outside = (str(TESTS), "kit.line_echo.service")
    _call_module = "kit.line_echo.call"

    def __init__(
        self,
        address: Any = ("127.0.0.1", 0),
        handler: Callable[[Line], Any] | None = None,
        *,
        longest: int = 1000,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(address, handler, **options)
        self._longest = longest

    def _settings(self) -> dict[str, Any]:
        return {"longest": self._longest}
