"""The whole exception tree, shown as a tree.

    SidestageError
    ├── StartError (OSError)              the server could not start; carries the errno
    │   └── StartTimeout (TimeoutError)   the child was not ready in time
    ├── StateError (RuntimeError)         the call does not fit the server's state
    ├── ServerDied                        the child ended without being asked
    ├── ServerStopped (ConnectionError)   a handler's I/O outlived its server
    └── WaitTimeout (TimeoutError)        fewer records than waited for
    ForcedStopWarning (RuntimeWarning)    stop() had to go further than asking

Facts are attributes; each message says what to do next.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ForcedStopWarning",
    "ServerDied",
    "ServerStopped",
    "SidestageError",
    "StartError",
    "StartTimeout",
    "StateError",
    "WaitTimeout",
]


def shown(value: object) -> str:
    """The beginning of ``repr(value)``, or what there is of it where that raises."""
    try:
        return repr(value)[:200]
    except Exception:  # noqa: BLE001 - the test's own class, of which we have to say what it is
        return object.__repr__(value)


class SidestageError(Exception):
    """Base of every exception that Sidestage raises on its own account."""


class StartError(SidestageError, OSError):
    """The server could not start.

    ``errno`` and ``strerror`` are those of the operating system where it was the one to refuse
    (``EADDRINUSE``, ``EACCES``), ``address`` is what the server was to listen on, and
    ``stderr`` the tail of what the child wrote there.
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
    """The call does not fit the state that the server is in; nothing was changed."""


def _rebuild(
    kind: type[SidestageError], arguments: tuple[Any, ...], facts: dict[str, Any]
) -> SidestageError:
    """An error with the facts that pickle or copy has carried."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(facts)
    return error


class ServerDied(SidestageError):
    """The server's process ended without having been asked to.

    ``exit_code`` is the exit status, ``signal`` the signal's name where one killed it (else
    ``None``), ``pid`` the process, and ``stderr`` the tail of what it wrote there. An
    ``exit_code`` of ``None`` means that somebody else had reaped the process.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(self, what: str, *, pid: int, exit_code: int | None, stderr: str = "") -> None:
        self.what = what
        self.pid = pid
        self.exit_code = exit_code
        self.signal = _signal_name(exit_code)
        self.stderr = stderr
        super().__init__(self._describe())

    @property
    def how(self) -> str:
        """How it ended, in words that can follow its name."""
        if self.signal:
            return f"was killed by {self.signal}"
        if self.exit_code is None:
            return "ended (its exit status was taken by another waiter in this process)"
        return f"exited with status {self.exit_code}"

    def _describe(self) -> str:
        text = f"the process of {self.what} (pid {self.pid}) {self.how}"
        return f"{text}\n{_quoted(self.stderr)}" if self.stderr else f"{text}; its stderr is empty"


class ServerStopped(SidestageError, ConnectionError):
    """The handler's server has stopped, so its connection is gone."""


class WaitTimeout(SidestageError, TimeoutError):
    """``wait_for`` ran out of time; ``received`` holds what did come, ``expected`` the count."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __init__(self, message: str, *, expected: int, received: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.expected = expected
        self.received = received


class ForcedStopWarning(RuntimeWarning):
    """``stop()`` had to close, terminate or kill; its report says what the server was doing."""


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
