"""The whole exception tree, shown as a tree.

    SidestageError
    ├── StartError (OSError)              the server could not start; carries the errno
    │   └── StartTimeout (TimeoutError)   the child was not ready in time
    ├── StateError (RuntimeError)         the call does not fit the server's state
    ├── ServerDied                        the server's process ended without being asked
    ├── ServerStopped (ConnectionError)   a handler's I/O outlived its server
    ├── WaitTimeout (TimeoutError)        fewer records than waited for
    ├── NotOneRecord (AssertionError)     ``received.one`` has found none, or several
    ├── UnexpectedRequest (AssertionError)   no expectation takes what a client sent
    └── UnmetExpectation (AssertionError)    what was expected did not come, or not as often
    ForcedStopWarning (RuntimeWarning)    stop() had to do more than ask
    LeftRunningWarning (RuntimeWarning)   a handler runs on after the stop of its server

Facts are attributes, so nobody has to parse a message; each message says what to do next.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ForcedStopWarning",
    "LeftRunningWarning",
    "NotOneRecord",
    "ServerDied",
    "ServerStopped",
    "SidestageError",
    "StartError",
    "StartTimeout",
    "StateError",
    "UnexpectedRequest",
    "UnmetExpectation",
    "WaitTimeout",
]


def shown(value: object) -> str:
    """The first 200 characters of ``repr(value)``; the default repr if that raises."""
    try:
        return repr(value)[:200]
    except Exception:  # noqa: BLE001 - whatever the repr of the test's own class raises
        return object.__repr__(value)


def text_of(error: BaseException) -> str:
    """The text of ``error``, even if its ``__str__`` raises."""
    try:
        return str(error)
    except BaseException as other:  # noqa: BLE001 - whatever its __str__ raises
        return f"(its text cannot be had: {type(other).__name__})"


def leaves_of(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it, in their order; else ``error`` alone."""
    found: list[BaseException] = []
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left += reversed(each.exceptions)
        else:
            found.append(each)
    return found


def brief(error: BaseException, limit: int = 200) -> str:
    """``error`` in one line of at most ``limit`` characters: its type and where its text begins.

    Of a group, whose text says nothing of what is in it, that is the first error in it.
    """
    name = str(type(error).__name__)  # which may be anything
    if isinstance(error, BaseExceptionGroup):
        first, *others = leaves_of(error)
        which = f"one of {len(others) + 1:,} in" if others else "in"
        end = f" ({which} {name})"
        return f"{brief(first, max(0, limit - len(end)))}{end}"[:limit]
    text = next((line for line in text_of(error).splitlines() if line.strip()), "").strip()
    told = f"{name}: {text}" if text else name
    told = told[:limit].encode("utf-8", "backslashreplace").decode()
    if not told.isprintable():
        told = "".join(c if c.isprintable() else "?" for c in told)
    return told[:limit]


class SidestageError(Exception):
    """Base class of all exceptions that Sidestage itself defines."""


class StartError(SidestageError, OSError):
    """The server could not start.

    Where the operating system refused, ``errno`` and ``strerror`` are its own (``EADDRINUSE``,
    ``EACCES``). ``address`` is where the server should have listened, ``stderr`` the tail of what
    the child wrote there.
    """

    def __init__(
        self, errno: int | None, message: str, *, address: object = None, stderr: str = ""
    ) -> None:
        super().__init__(errno, message)
        self.address = address
        self.stderr = stderr

    def __str__(self) -> str:
        text = str(self.args[1])
        return f"{text}\n{_quoted(self.stderr)}" if self.stderr else text


class StartTimeout(StartError, TimeoutError):
    """The child did not report ready within ``start_timeout`` seconds."""


class StateError(SidestageError, RuntimeError):
    """The call does not fit the state of the server; it has changed nothing."""


def _rebuild(
    kind: type[SidestageError], arguments: tuple[Any, ...], facts: dict[str, Any]
) -> SidestageError:
    """Rebuild an error from its arguments and attributes, for pickle and copy."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(facts)
    return error


class ServerDied(SidestageError):
    """The server's process ended without being asked to.

    ``exit_code`` is the exit status, or ``None`` if another waiter has reaped the process;
    ``signal`` is the name of the signal that killed it, or ``None``; ``pid`` is its process id, and
    ``stderr`` the tail of what it wrote there. ``why`` is why this process had to kill it; empty if
    it did not.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(
        self, what: str, *, pid: int, exit_code: int | None, stderr: str = "", why: str = ""
    ) -> None:
        self.what = what
        self.pid = pid
        self.exit_code = exit_code
        self.signal = _signal_name(exit_code)
        self.stderr = stderr
        self.why = why
        super().__init__(self._describe())

    @property
    def how(self) -> str:
        """How the process ended, as a predicate: "was killed by SIGKILL"."""
        if self.signal:
            why = f", because {self.why}" if self.why else ""
            return f"was killed by {self.signal}{why}"
        if self.exit_code is None:
            return "ended (its exit status was taken by another waiter in this process)"
        return f"exited with status {self.exit_code}"

    def _describe(self) -> str:
        text = f"the process of {self.what} (pid {self.pid}) {self.how}"
        return f"{text}\n{_quoted(self.stderr)}" if self.stderr else f"{text}; its stderr is empty"


class ServerStopped(SidestageError, ConnectionError):
    """The handler's server has stopped, so its connection is gone."""


class WaitTimeout(SidestageError, TimeoutError):
    """``wait_for`` timed out: ``received`` is what came, ``expected`` the count asked for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(self, message: str, *, expected: int, received: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.expected = expected
        self.received = received


class NotOneRecord(SidestageError, AssertionError):
    """``received.one`` was not of one record: ``found`` are those, ``received`` is what came."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(self, message: str, *, found: tuple[Any, ...], received: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.found = found
        self.received = received


class UnexpectedRequest(SidestageError, AssertionError):
    """No expectation of a strict server takes what a client has sent.

    ``request`` is its record, and ``server`` the server as messages name it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(self, message: str, *, server: str, request: Any) -> None:
        super().__init__(message)
        self.server = server
        self.request = request


class UnmetExpectation(SidestageError, AssertionError):
    """An expectation was not met, or not as often as it has to be; or a held call was left.

    ``expectation`` is what was declared, ``place`` where ("test_shop.py:12"; empty if that is not
    known), ``count`` how often it was met, and ``expected`` how often it has to be at least.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(
        self, message: str, *, expectation: str, place: str, count: int, expected: int
    ) -> None:
        super().__init__(message)
        self.expectation = expectation
        self.place = place
        self.count = count
        self.expected = expected


class ForcedStopWarning(RuntimeWarning):
    """``stop()`` had to close, terminate or kill; its report says what the server was doing."""


class LeftRunningWarning(RuntimeWarning):
    """A handler runs on after the stop of its server; the message says where."""


def _signal_name(exit_code: int | None) -> str | None:
    if exit_code is None or exit_code >= 0:
        return None
    import signal

    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _quoted(stderr: str) -> str:
    return "its stderr ends with:\n" + "\n".join(f"  | {line}" for line in stderr.splitlines())
