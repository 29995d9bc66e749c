"""What our threads do, and who traces them: whose code one is in, a debugger's prompt, trace hooks.

Nothing announces any of this, so stacks and hooks are inspected, and only when the answer matters:
at a fork, when a time-out is due, before a handler is called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Sequence
from types import FrameType

from ..pristine.waits import Deadline, Wakeup

# Whose code -----------------------------------------------------------------------------------

_OURS = frozenset({"sidestage", "asyncio", "selectors"})  # the last two in our event-loop threads
_NOT_THE_TESTS = sys.stdlib_module_names - {"__main__"} | {"sidestage"}
_HANDLER = "run_handler"  # our function that calls the test's handler
_MOMENT = 0.02  # seconds for a handler that only has to return
_MACHINE_SECONDS = 1.0  # for a thread in our own code: microseconds, once it gets a processor


def is_ours(thread: int | None) -> bool:
    """Whether the thread with this id runs none of the test's code; true if it has no stack."""
    frame = None if thread is None else sys._current_frames().get(thread)
    while frame is not None:
        if _package(frame) not in _OURS or frame.f_code.co_name == _HANDLER:
            return False
        frame = frame.f_back
    return True


def let_end(
    threads: Callable[[], Collection[int | None]],
    changed: Wakeup,
    *,
    seconds: float = _MACHINE_SECONDS,
    moment: float = _MOMENT,
) -> None:
    """Wait until ``threads()`` is empty or names only threads in handlers, at most ``seconds``.

    ``changed`` is notified when a thread has ended. A thread in a handler gets ``moment`` seconds,
    because its reply may be out already; one in our own code ends by itself, on a busy machine
    later.
    """
    deadline = Deadline(seconds)
    while not changed.wait_until(lambda: not threads(), Deadline(moment), brief=True):
        if deadline.passed() or not any(is_ours(thread) for thread in threads()):
            return


def waits_in_ours(thread: int | None) -> bool:
    """Whether this thread is in our own code, called by the test's or not; true without a stack."""
    frame = None if thread is None else sys._current_frames().get(thread)
    return frame is None or _package(frame) in _OURS


# Where --------------------------------------------------------------------------------------------


def place_of(thread: int | None) -> str | None:
    """Where the handler that this thread runs is: file, line and function; ``None`` if it ended."""
    frame = None if thread is None else sys._current_frames().get(thread)
    frames: list[FrameType] = []
    while frame is not None and frame.f_code.co_name != _HANDLER:
        frames.append(frame)
        frame = frame.f_back
    return None if not frames else where(frames)


def place_in_loop(thread: int | None) -> str | None:
    """The same of a coroutine that runs now, in a loop in this thread."""
    frame = None if thread is None else sys._current_frames().get(thread)
    frames: list[FrameType] = []
    while frame is not None and _package(frame) != "asyncio":
        frames.append(frame)
        frame = frame.f_back
    return where(frames) if frames else None


def where(frames: Sequence[FrameType]) -> str:
    """File, line and function of the innermost of ``frames``, which come first, that is the test's.

    What the standard library and other packages do for it says less. Without one of the test's, it
    is the innermost that is not ours, or of the standard library.
    """
    others = [frame for frame in frames if _package(frame) not in _NOT_THE_TESTS]
    tests = [frame for frame in others if not _is_installed(frame.f_code.co_filename)]
    frame = (tests or others or frames)[0]
    code = frame.f_code
    return f"at {code.co_filename}:{frame.f_lineno}, in {code.co_name}"


def _is_installed(path: str) -> bool:
    return "site-packages" in path or "dist-packages" in path


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


# Debuggers ------------------------------------------------------------------------------------

_DEBUGGERS = frozenset(
    {"bdb", "pdb", "IPython", "ipdb", "pudb", "_pytest", "pydevd", "_pydevd_bundle"}
)
_PROMPTS = frozenset({"interaction", "do_wait_suspend"})  # of bdb's subclasses, of pydevd
_LOOK_SECONDS = 0.1

_never = Wakeup()  # nobody notifies it: waiting for it sleeps on a clock that no test can patch


def at_prompt() -> bool:
    """Whether any thread of this process is in a debugger's prompt now."""
    if "bdb" not in sys.modules and "pydevd" not in sys.modules:
        return False
    return any(_is_in_prompt(frame) for frame in sys._current_frames().values())


def _is_in_prompt(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _PROMPTS and _package(frame) in _DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def wait_while_at_prompt() -> bool:
    """Block while any thread is in a debugger's prompt; returns whether one was."""
    was = False
    while at_prompt():
        was = True
        _never.wait_until(lambda: False, Deadline(_LOOK_SECONDS))
    return was


# Trace hooks ----------------------------------------------------------------------------------


class Tracers:
    """Sets the hooks of coverage, debuggers and profilers in the current thread.

    ``threading`` sets them only in threads that it started itself, which ours are not.
    """

    __slots__ = ("_profile", "_trace")

    def __init__(self) -> None:
        self._trace: object = None
        self._profile: object = None

    def follow(self) -> None:
        """Set the hooks that ``threading`` would set in a thread started now."""
        trace, profile = threading.gettrace(), threading.getprofile()
        if trace is not self._trace:
            self._trace = trace
            sys.settrace(trace)
        if profile is not self._profile:
            self._profile = profile
            sys.setprofile(profile)
