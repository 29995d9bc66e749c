"""``expect`` and ``allow`` of an HTTP server, and what goes with them.

Nothing but their signatures is here: the rest is imported with the first expectation.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...errors import shown
from ...expectations import keywords
from ...expectations.keywords import known_keywords
from ...journal.frames import trimmed
from ...journal.places import place_of_frames
from ...patterns.words import not_given
from ...pristine.imports import importing_once
from ...server.securing import Secured

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from ...expectations.held import HeldCall
    from ...expectations.table import Table
    from ...server.expectation import Expectation, Taking
    from .request import HTTPRequest


@functools.cache  # to look at a late import each time takes as long as the rest
def _declaring() -> Callable[..., Expectation[HTTPRequest]]:
    with importing_once():
        from .declaring import declare
    return declare


class Expecting(Secured["HTTPRequest"]):
    """What an HTTP server expects of its clients."""

    # Over thirty lines, as the next one: every part of a request, a line each.
    @known_keywords(keywords.EXPECT, declares=True)
    def expect(
        self,
        method: str | tuple[str, ...],
        path: str | re.Pattern[str],
        *,
        query: Any = not_given,
        headers: Any = not_given,
        cookies: Any = not_given,
        auth: Any = not_given,
        json: Any = not_given,
        form: Any = not_given,
        text: Any = not_given,
        body: Any = not_given,
        where: Callable[[HTTPRequest], object] | None = None,
        times: int | range | None = None,
    ) -> Expectation[HTTPRequest]:
        """Say that such a request must come; ``.reply(...)`` on the result says how to answer it.

        What is not given is not looked at. It has to be met as often as it has replies, at least
        once; or ``times``: 2 is exactly twice, ``range(1, 4)`` one to three times, 0 never. From
        the first on the server is strict: an unexpected request gets a 404 and fails the test.

        Raises TypeError or ValueError, which say what to write, for what can never match.
        """
        __tracebackhide__ = True
        parts = {
            "query": query,
            "headers": headers,
            "cookies": cookies,
            "auth": auth,
            "json": json,
            "form": form,
            "text": text,
            "body": body,
        }
        return self._declare(method, path, where, times, parts, allow=False)

    @known_keywords(keywords.ALLOW, declares=True)
    def allow(
        self,
        method: str | tuple[str, ...],
        path: str | re.Pattern[str],
        *,
        query: Any = not_given,
        headers: Any = not_given,
        cookies: Any = not_given,
        auth: Any = not_given,
        json: Any = not_given,
        form: Any = not_given,
        text: Any = not_given,
        body: Any = not_given,
        where: Callable[[HTTPRequest], object] | None = None,
        times: int | None = None,
    ) -> Expectation[HTTPRequest]:
        """Say that such a request may come, ``times`` at most; all else is as for ``expect``.

        What is expected goes before it, and of what is allowed, the last that was declared.
        """
        __tracebackhide__ = True
        parts = {
            "query": query,
            "headers": headers,
            "cookies": cookies,
            "auth": auth,
            "json": json,
            "form": form,
            "text": text,
            "body": body,
        }
        return self._declare(method, path, where, times, parts, allow=True)

    # Over five arguments: those of both, together.
    def _declare(
        self,
        method: Any,
        path: Any,
        where: Any,
        times: Any,
        parts: dict[str, Any],
        *,
        allow: bool,
    ) -> Expectation[HTTPRequest]:
        place = place_of_frames(_frames(sys._getframe(2)))
        declare = _declaring()
        return declare(self, method, path, where, times, parts, allow=allow, place=place)

    def _table(self) -> Table:
        """What is declared; made when it is first needed."""
        slot: Any = self._slot
        if slot.declared is None:
            with importing_once():
                from ...expectations.table import Table
                from .declaring import REPLIES
            table = Table(REPLIES)
            table.fails = self._unexpected_fails()
            slot.declared = table
        found: Table = slot.declared
        return found

    def _check_fault(self, fault: Any) -> None:
        if fault is not None:
            with importing_once():
                from .faults import refuse_without_tls
            refuse_without_tls(fault, secured=self.tls is not None)

    def _unexpected_fails(self) -> bool:
        return True

    def in_order(self) -> AbstractContextManager[None]:
        """Have what this thread expects inside a ``with`` be met in that order.

        One opens when all before it have been met as often as they have to be, and closes when a
        later one is met. Other requests are free. Raises StateError inside of another.
        """
        with importing_once():
            from ...server.expectation import InOrder
        return InOrder(self._table())

    @known_keywords(keywords.TAKE)
    def take(
        self, method: str | tuple[str, ...] = "*", path: str = "*", timeout: float = 5.0
    ) -> HeldCall[HTTPRequest]:
        """Wait for a held call of any expectation, and take it: the first that matches.

        Raises WaitTimeout after ``timeout`` seconds, ServerDied if the server's process ends, and
        StateError where it would block an event loop: write ``await take_async()`` there.
        """
        __tracebackhide__ = True
        return self._taking(method, path).run(timeout)

    @known_keywords(keywords.TAKE)
    async def take_async(
        self, method: str | tuple[str, ...] = "*", path: str = "*", timeout: float = 5.0
    ) -> HeldCall[HTTPRequest]:
        """As ``take``, while asyncio's loop goes on."""
        __tracebackhide__ = True
        return await self._taking(method, path).run_off_loop(timeout)

    def _taking(self, method: str | tuple[str, ...], path: str) -> Taking[HTTPRequest]:
        with importing_once():
            from ...server.expectation import Taking
            from .fields import near_method
        accepts = type(self)._matching(method, path)
        near = near_method(method) if isinstance(method, str) and method != "*" else ""
        what = f"held that is {shown(method)}{near}, {shown(path)}"
        return Taking(self, self._table(), lambda held: accepts(held.request), what)

    def verify(self) -> None:
        """Raise what is unmet by now, or was unexpected; it does not wait for it.

        One as itself, several as an ExceptionGroup: UnmetExpectation, UnexpectedRequest. What it
        has raised is not raised again. Raises ServerDied if the server's process has ended.
        """
        __tracebackhide__ = True
        self._catch_up()
        backend = self._lifecycle.backend
        if backend is not None and backend.death is not None:
            raise backend.death.with_traceback(None)
        if self._slot.declared is None:
            return
        with importing_once():
            from ...server import verifying
        if (error := verifying.error_of(self)) is not None:
            raise error

    def clear(self) -> int:
        """Forget what was declared, received, diagnosed and raised; it is no longer strict.

        Returns how many errors nobody has seen, unexpected requests among them. A handler that is
        still running may raise after this: ``wait_idle`` first.
        """
        table: Any = self._slot.declared
        if table is not None:
            with importing_once():
                from ...server import verifying
            table.remove(list(table), strict=False)
            verifying.tell(self)
        return super().clear()

    @trimmed
    def url_for(self, path: str, /, **query: Any) -> str:
        """The URL of ``path`` at this server, with ``query``; a list is a repeated name.

        Raises ValueError for what is no path or no value, and StateError before the start.
        """
        with importing_once():
            from .urls import url_for
        return url_for(self.url, path, query)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that have called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


# As Python's own errors name it, for a wrong keyword, say: users know no other class.
for _name, _method in list(vars(Expecting).items()):
    if not _name.startswith("_") and hasattr(_method, "__qualname__"):
        for _function in (_method, getattr(_method, "__wrapped__", _method)):
            _function.__qualname__ = f"HTTPServer.{_name}"
