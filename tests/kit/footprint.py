"""Notes everything in a process that other code may depend on, and says what has changed since.

Tests run the text of this module at the top of a script, before Sidestage is imported.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import copyreg
import faulthandler
import gc
import locale
import logging
import multiprocessing.process
import multiprocessing.util
import os
import pickle
import random
import resource
import signal
import socket
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

os.environ["TZ"] = "XYZ-9"  # not in force before time.tzset()

_fork_hooks: list[str] = []
_exit_handlers: list[str] = []
_register_at_fork, _register = os.register_at_fork, atexit.register
_OF_THE_KERNEL = ("Umask", "SigBlk", "SigIgn", "NoNewPrivs", "Seccomp:", "Cap")


def _noted_at_fork(**functions: Any) -> None:
    _fork_hooks.append(sys._getframe(1).f_globals["__name__"])
    _register_at_fork(**functions)


def _noted(function: Any, *arguments: Any, **named: Any) -> Any:
    _exit_handlers.append(f"{function.__module__}.{function.__qualname__}")
    return _register(function, *arguments, **named)


os.register_at_fork = _noted_at_fork
atexit.register = _noted  # type: ignore[assignment]  # a callable


# Over thirty lines: what a process has, a line each.
def footprint() -> dict[str, Any]:
    """All that is noted, by its name."""
    mp: Any = multiprocessing.process
    policy: Any = _policy()
    dispatch: Any = pickle
    loggers = logging.root.manager.loggerDict
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "pickle": (dict(dispatch._Pickler.dispatch), dict(dispatch._Unpickler.dispatch)),
        "copyreg": (dict(copyreg.dispatch_table), dict(vars(copyreg)["_extension_registry"])),
        "modules": {name for name in sys.modules if not name.startswith("sidestage")},
        "main": sys.modules["__main__"],
        "builtins": dict(vars(builtins)),
        "sys": {
            name: list(value) if isinstance(value, (list, tuple)) else value
            for name, value in vars(sys).items()
            if name not in ("modules", "path_importer_cache") and not name.startswith("last_")
        },
        "signals": [(one, signal.getsignal(one)) for one in sorted(signal.valid_signals())],
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "timers": [signal.getitimer(which) for which in range(3)],
        "warnings": (list(warnings.filters), warnings.showwarning, warnings.formatwarning),
        "environment": dict(os.environ),
        "tracing": (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()),
        "tools": (tracemalloc.is_tracing(), faulthandler.is_enabled()),
        "intervals": (sys.getswitchinterval(), sys.getrecursionlimit(), threading.stack_size()),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "coroutines": (sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()),
        "collector": (
            gc.isenabled(),
            gc.get_threshold(),
            list(gc.callbacks),
            gc.get_freeze_count(),
        ),
        "logging": (logging.root.level, list(logging.root.handlers), logging.raiseExceptions),
        "logging classes": (logging.getLoggerClass(), logging.getLogRecordFactory()),
        "loggers": sorted((name, getattr(one, "level", 0)) for name, one in loggers.items()),
        "multiprocessing": (set(mp._children), set(mp._dangling), repr(mp._process_counter)),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "finalizers": dict(vars(multiprocessing.util)["_finalizer_registry"]),
        "asyncio": (policy, asyncio._get_running_loop(), dict(vars(policy._local))),
        "locale": locale.setlocale(locale.LC_ALL),
        "local time": time.localtime(0),
        "random": random.getstate(),
        "sockets": socket.getdefaulttimeout(),
        "limits": [resource.getrlimit(which) for which in range(10)],
        "directory": Path.cwd(),
        "groups": (os.getpgid(0), os.getsid(0)),
        "scheduling": (os.getpriority(0, 0), os.sched_getaffinity(0)),
        "kernel": [_of_the_test(line) for line in status if line.startswith(_OF_THE_KERNEL)],
        "threads": threading.enumerate(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),  # noqa: PTH208 - the names
        "exit handlers": list(_exit_handlers),
        "fork hooks": list(_fork_hooks),
    }


# Without the warning of 3.14, which has both.
_policy: Any = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)


def _of_the_test(line: str) -> str:
    """A line of the status without the signals 32 and 33, which the C library has for itself."""
    name, _, value = line.partition(":\t")
    return f"{name}: {int(value, 16) & ~(3 << 31):x}" if name.startswith("Sig") else line


def changes(before: dict[str, Any]) -> dict[str, list[str]]:
    """What is no longer as it was: what has come, or else the old and the new value."""
    found = {}
    for name, new in footprint().items():
        old = before[name]
        if new != old:
            several = isinstance(new, (list, set, dict))
            added = [str(one) for one in new if one not in old] if several else []
            found[name] = added or [str(old), str(new)]
    return found


footprint()  # whatever it imports by itself
before = footprint()
