"""What handlers have raised, as text for reports, and during which test each request came.

A runner of tests says when each test begins; whatever raises or reports asks here. Text only: a
report must not keep alive what a handler had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..errors import brief, text_of
from ..pristine.waits import Clock
from .frames import Place, innermost

_MOST = 1000  # tests that are remembered; also what one of them tells
_KEY = 4000  # characters of a message in which equal errors are equal


class Cause:
    """One error of a handler."""

    __slots__ = ("came", "errors", "key", "own", "place", "seen", "status", "test", "text", "why")

    # Over five arguments: the facts of an error, one each.
    def __init__(
        self, error: BaseException, why: str, came: float, place: Place | None, test: Test | None
    ) -> None:
        self.text = brief(error)
        self.why = why  # the request, as a note tells it
        self.came = came  # when the request came, in seconds on the monotonic clock
        self.place = innermost(error) or place
        self.test = test  # during which the request came
        self.status: int | None = None  # that the client was told, if its protocol has any
        self.seen = False  # somebody has read it in ``errors``
        self.key = (type(error), text_of(error)[:_KEY], self.place and self.place[:2])
        self.own = frozenset({id(error)})
        self.errors = {id(error)}  # and of those to which it was added as a note


class Test:
    """A test that runs or has run."""

    __test__ = False  # pytest must not collect it
    __slots__ = ("began", "causes", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = Clock.monotonic()
        self.causes: deque[Cause] = deque(maxlen=_MOST)  # of requests that came during it


_tests: deque[Test] = deque(maxlen=_MOST)


def begin(name: str) -> Test:
    """A test begins: what comes from now on is charged to it."""
    test = Test(name)
    _tests.append(test)
    return test


def forget_tests() -> None:
    """No test runs any more."""
    _tests.clear()


def test_at(came: float) -> Test | None:
    """The test that ran at that time of the monotonic clock, if any did."""
    return next((test for test in reversed(_tests.copy()) if test.began <= came), None)


def current() -> Test | None:
    """The test that runs now."""
    try:
        return _tests[-1]
    except IndexError:
        return None


def attached(error: BaseException, raised: BaseException) -> None:
    """Note that ``raised`` is told with ``error``, and what it holds with it."""
    for cause in causes_of(raised):
        cause.errors.add(id(error))


def causes_of(*errors: BaseException | None) -> list[Cause]:
    """What handlers have raised that is one of ``errors``, has led to one, or is told with one."""
    told = {id(each) for each in family(*errors)}
    return [c for test in _tests.copy() for c in test.causes.copy() if c.errors & told]


def family(*errors: BaseException | None) -> Iterator[BaseException]:
    """All ``errors``, what has led to them, and what these hold, each once."""
    left = [*errors]
    seen: set[int] = set()
    while left and len(seen) < _MOST:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__context__, each.__cause__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
