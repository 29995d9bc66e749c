"""What may be set on a server, and read: a misspelled name is an error that says what was meant.

Only for the classes that say so, and not for those that users derive from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..journal.frames import trim, trimmed
from ..pristine.imports import importing_once

# What other tools call it.
_ELSEWHERE = {
    **dict.fromkeys(("requests", "log", "history", "calls"), "received"),
    **dict.fromkeys(("outbox", "mails", "messages", "packets", "datagrams"), "received"),
    "base_url": "url",
    **dict.fromkeys(("expect_request", "expect_oneshot_request"), "expect"),
    "expect_ordered_request": "in_order",
    **dict.fromkeys(("check", "check_assertions"), "verify"),
    "check_handler_errors": "raise_errors",
}


class Named:
    """An object whose public attributes are known, as type checkers know them."""

    _closed: ClassVar[type | None] = None  # the class that has no other attributes
    _annotated: ClassVar[frozenset[str]] = frozenset()

    if not TYPE_CHECKING:
        # Quick, because a server's constructor calls it for each attribute.
        def __setattr__(
            self, name: str, value: Any, put: Callable[..., None] = object.__setattr__
        ) -> None:
            kind = type(self)
            try:
                if kind is not kind._closed:
                    super().__setattr__(name, value)  # the user's class may have another base
                    return
                if name not in kind._annotated and name[:1] != "_" and not hasattr(kind, name):
                    raise _refusal(kind, name)
                put(self, name, value)
            except BaseException as error:
                trim(error)
                raise

        def __getattr__(self, name: str) -> Any:
            kind = type(self)
            if kind is kind._closed and name[:1] != "_" and name not in kind._annotated:
                raise _refusal(kind, name)
            text = f"{kind.__name__!r} object has no attribute {name!r}"
            raise AttributeError(text)  # Python adds what is like it


K = TypeVar("K", bound=type[Named])


def closed(kind: K) -> K:
    """Decorate a class: its instances have no other public attributes; derived classes are free.

    It has those of the class, and those that it and its bases annotate.
    """
    kind._closed = kind
    type.__setattr__(kind, "__init__", trimmed(kind.__init__))
    kind._annotated = frozenset(
        name for base in kind.__mro__ for name in getattr(base, "__annotations__", ())
    )
    return kind


def _refusal(kind: type[Named], name: str) -> AttributeError:
    text = f"{kind.__name__!r} object has no attribute {name!r}"
    if near := _near(kind, name):
        text += f": did you mean {' or '.join(map(repr, near))}?"
    # Without ``obj``, for which Python would add its own "Did you mean".
    return AttributeError(text, name=name)


def _near(kind: type[Named], name: str) -> list[str]:
    known = sorted(known for known in {*dir(kind), *kind._annotated} if known[0] != "_")
    if (ours := _ELSEWHERE.get(name)) in known:
        return [ours]
    if longer := [known for known in known if known.endswith(f"_{name}")]:
        return longer
    with importing_once():
        import difflib
    return difflib.get_close_matches(name, known, 1)
