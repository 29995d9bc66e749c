"""How a report begins: what handlers have raised, where, and what became of it, in six lines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ForcedStopWarning, LeftRunningWarning, SidestageError, brief, text_of
from .causes import Cause, Test, family
from .frames import innermost, source

MOST = 6  # lines
_WHOLE = 2  # causes that have three lines each
_BLOCKS = 20  # of errors that nobody has seen
_LINE = 200  # characters
_TEXT = 120  # characters of an error, in a line with its place
_CLIENT = 100  # characters of what the test itself has raised


def opening(
    causes: Iterable[Cause],
    error: BaseException | None,
    test: Test | None,
    shorten: Callable[[str], str],
) -> list[str]:
    """The first lines of a report of ``error``; none without a cause.

    ``test`` is the one that is reported, and ``shorten`` makes a path short.
    """
    groups = _equal(causes)
    if not groups:
        return []
    lines: list[str] = []
    for same in groups[: MOST - 1 if len(groups) > MOST else MOST]:
        lines.append(_first_line(same, test, shorten))
        if len(groups) <= _WHOLE:
            lines += _details(same[0])[: MOST // len(groups) - 1]
    if len(groups) > MOST:
        lines.append(f"and {len(groups) - MOST + 1} more errors")
    if (client := _client(error, groups)) is not None:
        lines[0] += f" → {client}"
    return lines


def of_call(error: BaseException, shorten: Callable[[str], str]) -> list[str]:
    """The first lines of a report of what a call of the test's own has raised, if that is ours."""
    if not isinstance(error, (SidestageError, ForcedStopWarning, LeftRunningWarning)):
        return []
    place = innermost(error)
    where = "" if place is None else f", {shorten(place.file)}:{place.line}"
    more = text_of(error).splitlines()[1:MOST]
    first = brief(error, _LINE - len(where)).removesuffix(":")  # before what is listed
    return [f"{first}{where}", *(f"    {each[:_LINE]}" for each in more)]


def client(error: BaseException | None) -> str | None:
    """What became of a request, where no handler has raised."""
    return _client(error, [])


def blocks(causes: Iterable[Cause], more: int, shorten: Callable[[str], str] = str) -> list[str]:
    """The lines for errors that nobody has seen: of equal ones once, and what the client was told.

    ``more`` is how many errors there were that were not kept.
    """
    groups = _equal(causes)
    lines: list[str] = []
    for same in groups[:_BLOCKS]:
        told = "" if same[0].status is None else f" → client told: {same[0].status}"
        lines += [_first_line(same, None, shorten) + told, *_details(same[0])]
    if others := len(groups[_BLOCKS:]):
        lines.append(f"and {others:,} more errors")
    if more:
        lines.append(f"and {more:,} more, which were not kept")
    return lines


def _equal(causes: Iterable[Cause]) -> list[list[Cause]]:
    equal: dict[object, list[Cause]] = {}
    for cause in causes:
        equal.setdefault(cause.key, []).append(cause)
    return list(equal.values())


def _first_line(same: list[Cause], test: Test | None, shorten: Callable[[str], str]) -> str:
    first = same[0]
    most = _TEXT if first.by else _LINE  # where the place is in the line, the text must not fill it
    text = first.text if len(first.text) <= most else f"{first.text[: most - 1]}…"
    line = f"{text}{first.by}"
    if first.place is not None:
        line += f", {shorten(first.place.file)}:{first.place.line}"
    if len(same) > 1:
        line += f", {len(same):,} times"
    if first.tests and test not in first.tests:
        line += f", for a request during {first.during()}"
    return line


def _details(cause: Cause) -> list[str]:
    lines = list(cause.details) or ([cause.why] if cause.why else [])
    if cause.place is not None and (text := source(cause.place)):
        lines.insert(0, f"> {text}")
    return [f"    {line[:_LINE]}" for line in lines]


# What became of it -------------------------------------------------------------------------------


def _client(error: BaseException | None, groups: list[list[Cause]]) -> str | None:
    """What the client, or the test, made of it; ``None`` if the error is the handlers' own."""
    own = {each for same in groups for cause in same for each in cause.own}
    if error is None or id(error) in own:
        return None
    if isinstance(error, BaseExceptionGroup) and all(id(each) in own for each in error.exceptions):
        return None
    status = next(filter(None, map(status_of, family(error))), None)
    if status is not None:
        return f"client: {type(error).__name__} {status}"
    if isinstance(error, SidestageError):  # of a call of the test's own
        return f"test: {brief(error, _CLIENT)}"
    if isinstance(error, OSError):  # clients put all they know in its text
        return f"client: {type(error).__name__}"
    # Not an Exception: pytest.fail, say.
    of_test = isinstance(error, AssertionError) or not isinstance(error, Exception)
    who = "test" if of_test or _is_raised_by_test(error) else "client"
    return f"{who}: {brief(error, _CLIENT)}"


def _is_raised_by_test(error: BaseException) -> bool:
    """Whether the test's own code has raised it, and no library."""
    place, trace = innermost(error), error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if place is None or trace is None:
        return False
    return place.file == trace.tb_frame.f_code.co_filename


def status_of(error: BaseException) -> int | None:
    """The status that a client was answered, as its library has it on its exceptions."""
    with contextlib.suppress(Exception):  # whatever the attributes of a user's class raise
        for holder in (error, getattr(error, "response", None)):
            codes = [name for name in getattr(holder, "__dict__", ()) if name.endswith("_code")]
            for name in ("status", *codes, "code"):
                number: Any = getattr(holder, name, None)
                if isinstance(number, int) and not isinstance(number, bool) and number >= 100:
                    return number
    return None
