"""What handlers have raised, as text for reports, and during which test each request came.

A runner of tests says when each test begins; whatever raises or reports asks here. Text only: a
report must not keep alive what a handler had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..errors import UnexpectedRequest, UnmetExpectation, brief, leaves_of, text_of
from ..pristine import system
from ..pristine.waits import Clock
from .frames import Place, innermost

_MOST = 1000  # tests that are remembered; also what one of them tells
_SEVERAL = 2  # tests at once
_NAMES = 4  # of tests at once that are told
_DETAILS = 3  # lines
_SECOND = ("  as expected:", "to expect this request:")  # of what differs, these say nothing
_KEY = 4000  # characters of a message in which equal errors are equal


class Cause:
    """One error of a handler."""

    __slots__ = (
        "by",
        "came",
        "details",
        "errors",
        "key",
        "own",
        "place",
        "seen",
        "status",
        "tests",
        "text",
        "why",
    )

    def __init__(
        self, error: BaseException, why: str, came: float, place: Place | None = None
    ) -> None:
        self.text = brief(error)
        # Who has raised it: no handler, if nothing takes a request, or it does not come.
        of_expectation = isinstance(error, (UnexpectedRequest, UnmetExpectation))
        self.by = "" if of_expectation else " in handler"
        self.details = _details(error) if of_expectation else ()
        self.why = why  # the request, as a note tells it
        self.came = came  # when the request came, in seconds on the monotonic clock
        first = leaves_of(error)[0]
        self.place = innermost(first) or innermost(error) or place
        self.tests = tests_at(came)  # during which the request came
        self.status: int | None = None  # that the client was told, if its protocol has any
        self.seen = False  # somebody has read it in ``errors``
        self.key = (type(error), brief(error), text_of(first)[:_KEY], self.place and self.place[:2])
        self.own = frozenset({id(error)})
        self.errors = {id(error)}  # and of those to which it was added as a note

    def during(self) -> str:
        """The tests during which its request came, as text: one of them has made it."""
        names = [test.name for test in self.tests[:_NAMES]]
        if more := len(self.tests[_NAMES:]):
            names.append(f"{more:,} others")
        return " or ".join(names)

    def charged_to(self, test: Test | None) -> bool:
        """Whether ``test``, which runs, is to fail for it; else another is, or none alone.

        Of a test that is over it may: then it has come late.
        """
        if len(self.tests) == 1:
            return self.tests[0] is test or self.tests[0].ended is not None
        return not self.tests and len(_running) < _SEVERAL


class Test:
    """A test that runs or has run."""

    __test__ = False  # pytest must not collect it
    __slots__ = ("began", "caller", "causes", "ended", "name", "overlaps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = Clock.monotonic()
        self.ended: float | None = None
        self.caller = system.caller_id()  # a test that it begins meanwhile is one inside it
        self.overlaps = False  # others have run beside it
        self.causes: deque[Cause] = deque(maxlen=_MOST)  # of requests that came during it

    def ran_at(self, came: float) -> bool:
        """Whether it ran at that time of the monotonic clock."""
        return self.began <= came and (self.ended is None or came <= self.ended)


_tests: deque[Test] = deque(maxlen=_MOST)  # as they began
_running: dict[int, Test] = {}  # the last that each caller has begun, until it ends


def _details(error: BaseException) -> tuple[str, ...]:
    """The lines of an error after its first that say what differs."""
    lines = text_of(error).splitlines()[1:]
    return tuple(line for line in lines if not line.startswith(_SECOND))[:_DETAILS]


def begin(name: str) -> Test:
    """A test begins: what comes from now on is charged to it, if no other runs beside it."""
    test = Test(name)
    _running[test.caller] = test  # before the look: of two that begin at once, one sees the other
    others = [other for other in _running.copy().values() if other is not test]
    for each in (test, *others) if others else ():
        each.overlaps = True
    _tests.append(test)
    return test


def end(test: Test) -> None:
    """A test ends, if it has not yet."""
    if test.ended is None:
        test.ended = Clock.monotonic()
    if _running.get(test.caller) is test:
        del _running[test.caller]


def forget_tests() -> None:
    """No test runs any more."""
    _tests.clear()
    _running.clear()


def tests_at(came: float) -> tuple[Test, ...]:
    """The tests that ran at that time of the monotonic clock.

    If none did, the last before it. Of a test that another has begun inside it, only the inner.
    """
    last = next((test for test in reversed(_tests.copy()) if test.began <= came), None)
    if last is None:
        return ()
    if not last.overlaps:
        return (last,)
    by_caller = {test.caller: test for test in _tests.copy() if test.ran_at(came)}
    return tuple(by_caller.values()) or (last,)


def current() -> Test | None:
    """The test that runs now; of several, that of the caller if there is one."""
    try:
        return _running.get(system.caller_id()) or _tests[-1]
    except IndexError:
        return None


def attached(error: BaseException, raised: BaseException) -> None:
    """Note that ``raised`` is told with ``error``, and what it holds with it."""
    for cause in causes_of(raised):
        cause.errors.add(id(error))


def causes_of(*errors: BaseException | None) -> list[Cause]:
    """What handlers have raised that is one of ``errors``, has led to one, or is told with one."""
    told = {id(each) for each in family(*errors)}
    found = (c for test in _tests.copy() for c in test.causes.copy() if c.errors & told)
    return list(dict.fromkeys(found))  # each once, of whatever tests it may be


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
