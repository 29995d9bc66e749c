"""The words for what is not one exact value: ``containing``, ``matching``, ``absent``, ``one_of``.

They only hold what was written. ``build`` checks it, since what is right depends on the place. This
module imports next to nothing, because tests import it with the servers.
"""

from __future__ import annotations

import re
from typing import Any, final

from ..errors import shown


class Word:
    """Base of what ``containing``, ``matching`` and ``one_of`` return."""

    __slots__ = ()


@final
class Containing(Word):
    """What ``containing`` returns."""

    __slots__ = ("part",)

    def __init__(self, part: Any) -> None:
        self.part = part

    def __repr__(self) -> str:
        return f"containing({self.part!r})"


@final
class Matching(Word):
    """What ``matching`` returns."""

    __slots__ = ("regex",)

    def __init__(self, regex: re.Pattern[str] | re.Pattern[bytes]) -> None:
        self.regex = regex

    def __repr__(self) -> str:
        flags = self.regex.flags & ~re.UNICODE
        if flags:
            return f"matching(re.compile({self.regex.pattern!r}, {re.RegexFlag(flags)!r}))"
        return f"matching({self.regex.pattern!r})"


@final
class OneOf(Word):
    """What ``one_of`` returns."""

    __slots__ = ("choices",)

    def __init__(self, choices: tuple[Any, ...]) -> None:
        self.choices = choices

    def __repr__(self) -> str:
        return f"one_of({', '.join(map(repr, self.choices))})"


@final
class AbsentType(Word):
    """The type of ``absent``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "absent"

    def __reduce__(self) -> str:
        return "absent"  # there is one: its copies are itself


absent = AbsentType()
"""In the place of a value: its name is not there at all."""


def containing(part: Any, /) -> Containing:
    """Match what contains ``part``, and anything beside it.

    A dict is some keys with their values, a list is some items in any order, text or bytes are a
    part of the text or bytes. Dicts and lists inside ``part`` are some of their keys and items too.
    Raises TypeError for anything else.
    """
    if not isinstance(part, (dict, list, str, bytes)):
        raise TypeError(
            "containing(...) takes a dict (some keys), a list (some items), or text or bytes "
            f"(a part of it), not {shown(part)}"
        )
    return Containing(part)


def matching(regex: str | bytes | re.Pattern[str] | re.Pattern[bytes], /) -> Matching:
    """Match text in which ``regex`` is found (``re.search``); its flags count if it is compiled.

    Raises TypeError if it is no regular expression, and ValueError if it is not a right one.
    """
    if isinstance(regex, re.Pattern):
        return Matching(regex)
    # Tests are not all read by a type checker.
    if isinstance(regex, (str, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
        given: Any = regex
        try:
            return Matching(re.compile(given))
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"matching({shown(regex)}): not a regular expression ({error}); "
                "for the text as it stands write containing(...)"
            ) from None
    raise TypeError(f"matching(...) takes a regular expression, not {shown(regex)}")


def one_of(*choices: Any) -> OneOf:
    """Match what one of ``choices`` matches, each written as if it stood alone in this place.

    Raises ValueError if there are fewer than two.
    """
    if len(choices) < 2:
        only = choices[0] if choices else None
        more = isinstance(only, (list, tuple, set, frozenset))
        hint = f"write one_of(*{shown(only)})" if more else "give them side by side: one_of(1, 2)"
        raise ValueError(f"one_of(...) takes two choices or more; {hint}")
    return OneOf(choices)


@final
class NotGiven:
    """The type of ``not_given``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(not given)"

    def __bool__(self) -> bool:
        return False


not_given = NotGiven()
"""The default of an argument for which ``None`` is a value."""
