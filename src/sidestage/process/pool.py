"""Keeps idle children: a start takes one, a clean stop gives it back.

A child in the pool serves nothing and has run none of the user's code. It ignores the environment
and the working directory that it was started in: pytest changes the environment with every test. So
any start may take it whose surroundings are those in which it was launched. In a forked copy of the
test the pool is empty, because the children belong to the original.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..pristine import system
from ..pristine.imports import importing_once
from ..pristine.waits import Deadline
from . import fork_hooks
from .launch import Launched, launch
from .surroundings import Surroundings, at_a_glance, surroundings

if TYPE_CHECKING:
    from ..wire.messages import Message
    from .channel import Channel
    from .fork_client import ForkClient
    from .handle import ServerProcess

Configure = Callable[["Channel"], None]  # configures the process at the other end

_NEVER = Deadline(None)
CAP = 8  # idle children kept, at most
END_SECONDS = 2.0  # for an idle child to end by itself before it is killed


class Child:
    """A process with its channel.

    ``waited`` is whether it waited in the pool, where it may have died unnoticed. ``stderr_start``
    is how many bytes it had written to stderr when it was taken. ``configured`` is its last
    configuration. ``events`` is what it has sent in the pool, for its next run, and ``ahead_comes``
    whether Ahead will be among that.
    """

    __slots__ = (
        "ahead_comes",
        "channel",
        "configured",
        "events",
        "process",
        "stderr_start",
        "waited",
    )

    def __init__(self, process: ServerProcess, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.stderr_start = 0
        self.waited = False
        self.configured: object = None
        self.events: list[Message] = []
        self.ahead_comes = False

    @property
    def surroundings(self) -> Surroundings | None:
        """What it was launched with; a start with others must not take it."""
        return self.process.launched.surroundings

    def stderr_tail(self) -> str:
        """What the child wrote to stderr since it was taken, at most the last 8 KiB."""
        return self.process.stderr_tail(self.stderr_start)


class Pool:
    """The idle children of this process, at most ``cap``, and its fork server.

    A child that is ended has ``end_seconds`` before it is killed.
    """

    def __init__(self, *, cap: int = CAP, end_seconds: float = END_SECONDS) -> None:
        self._cap = cap
        self.end_seconds = end_seconds
        self._lock = system.RLock()
        self._idle: list[Child] = []
        self._booting: list[Launched] = []  # not owned by a ServerProcess yet
        self._fork_client: ForkClient | None = None
        self._launched: Surroundings | None = (
            None  # the surroundings of the last interpreter launched
        )
        self._hooked = False
        self._owner = system.getpid()

    @property
    def idle(self) -> bool:
        """Whether there is an idle child."""
        return bool(self._idle)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._idle))

    def processes(self) -> list[ServerProcess]:
        """The processes that may live while no server runs: idle children and the fork server."""
        fork_client = self._fork_client
        kept = [child.process for child in self]
        if fork_client is not None and fork_client.process is not None:
            kept.append(fork_client.process)
        return kept

    def acquire(
        self,
        configure: Configure = lambda channel: None,
        *,
        serves: str | None = None,
        fresh: bool = False,
        needs_rights: bool = False,
        deadline: Deadline = _NEVER,
    ) -> Child:
        """An idle child, or a new one, that ``configure`` has configured; raises StartError.

        ``serves`` names the protocol that it will serve, and its layers, with commas, if all are
        Sidestage's own. ``needs_rights`` says whether it will bind what not everybody may bind, or
        what leaves a file. The caller holds ``fork_hooks.launch_lock``
        until the child belongs to a run.
        """
        if not self._hooked:
            self._hook()
        here = surroundings() if fresh or needs_rights else None
        while not fresh and (child := self._take(here)) is not None:
            if self._runs(child) and self._reuse(child, configure, known=here is not None):
                return child
        here = here or surroundings()
        launched = self._take_booting(here)
        child = self._adopt(launched or self._new(serves, here, deadline), configure)
        child.waited = launched is not None
        return child

    def resume(self, suits: Callable[[Child], bool], configure: Configure) -> Child | None:
        """An idle child that ``suits``, configured by ``configure``; ``None`` if none does."""
        child = self._take(None, suits)
        return child if child is not None and self._reuse(child, configure) else None

    def _runs(self, child: Child) -> bool:
        """Whether the process has not ended; else lets go of it."""
        ended = child.process.has_ended()
        if ended:
            end([child], self.end_seconds)
        return not ended

    def _reuse(self, child: Child, configure: Configure, *, known: bool = False) -> bool:
        """Configure a child; returns ``False``, and ends it, if its surroundings are others.

        If it is not ``known`` that they fit, that is looked at only now: the child wakes meanwhile.
        """
        child.stderr_start = child.process.stderr_size()
        child.waited = True
        fits = False
        try:
            configure(child.channel)
            expected = child.surroundings
            fits = known or (expected is not None and expected[0] == at_a_glance())
        finally:
            if not fits:
                child.process.kill()
                end([child], self.end_seconds)
        return fits

    def _new(self, serves: str | None, here: Surroundings, deadline: Deadline) -> Launched:
        if self._launched == here and enabled():
            forked = self._client(here).fork(serves, deadline)
            if forked is not None:
                forked.surroundings = here
                return forked
        return self._launch()

    def _client(self, here: Surroundings) -> ForkClient:
        """The client of a fork server with these surroundings: what it forks has them from it."""
        client = self._fork_client
        if client is not None and client.surroundings != here:
            client.kill()
            client = None
        if client is None:
            with importing_once():
                from .fork_client import ForkClient
            self._fork_client = client = ForkClient()
            client.surroundings = here
        return client

    def _launch(self) -> Launched:
        launched = launch()
        # Asked for now: the first process in a new PID namespace makes that known.
        self._launched = launched.surroundings = surroundings()
        return launched

    def _take_booting(self, here: Surroundings | None = None) -> Launched | None:
        """Remove a process that may serve ``here``, by default anywhere, and is not owned yet.

        Those that may not are ended: no start would take them.
        """
        with self._lock:
            booting, self._booting = self._booting, []
            fitting = [one for one in booting if here in (None, one.surroundings)]
            found = fitting.pop() if fitting else None
            self._booting += fitting
        for launched in booting:
            if launched is not found and launched not in fitting:
                launched.abandon()
        return found

    def _take(
        self, here: Surroundings | None = None, suits: Callable[[Child], bool] | None = None
    ) -> Child | None:
        """Remove the last child that may serve ``here``, by default anywhere, and that suits."""
        with self._lock:
            if self._owner != system.getpid():
                return None
            for child in reversed(self._idle):
                if (here is None or here == child.surroundings) and (suits is None or suits(child)):
                    try:
                        self._idle.remove(child)
                    except ValueError:  # a signal handler has come into this call, and has taken it
                        continue
                    return child
        return None

    def release(
        self, child: Child, deadline: Deadline = _NEVER, *, wanted: bool | None = None
    ) -> bool:
        """Keep an idle child; returns ``False`` if it was ended, as there are ``cap`` already.

        A child that was launched in other surroundings makes room for it. ``wanted`` is what
        ``enabled`` has told the caller, which takes longer than all of this.
        """
        ended, kept = child, False
        if enabled() if wanted is None else wanted:
            with self._lock:
                room = len(self._idle) < self._cap
                other = None if room else self._other(child)
                kept = room or other is not None
                if kept:
                    self._idle.append(child)
                if other is not None:
                    self._idle.remove(other)
                    ended = other
            if room:
                return True
        end([ended], deadline.sooner(self.end_seconds).left())
        return kept

    def _other(self, child: Child) -> Child | None:
        """An idle child that was launched in other surroundings than ``child``, if there is one."""
        others = (one for one in self._idle if one.surroundings != child.surroundings)
        return next(others, None)

    def boot(self) -> None:
        """Launch a child unless there is one. Takes a millisecond and imports nothing."""
        if enabled() and not self._idle and not self._booting:
            if not self._hooked:
                self._hook()
            with fork_hooks.launch_lock:
                self._booting.append(self._launch())

    def warm(self) -> None:
        """Make sure that an idle child is there and owned; does not wait until it has booted."""
        self.boot()
        with fork_hooks.launch_lock:
            while (launched := self._take_booting()) is not None:
                child = self._adopt(launched, lambda channel: None)
                with self._lock:
                    self._idle.append(child)

    def _adopt(self, launched: Launched, configure: Configure) -> Child:
        # Imported here because that takes tens of milliseconds, while the child boots. The second
        # import takes the longest: a child configured before it serves before it is done.
        try:
            with importing_once():
                from .channel import Channel
            channel = Channel(launched.events_fd, launched.commands_fd)
            configure(channel)
            with importing_once():
                from .handle import ServerProcess
        except BaseException:
            launched.abandon()
            raise
        return Child(ServerProcess(launched), channel)

    def _hook(self) -> None:
        self._hooked = True
        atexit.register(self.close)
        atexit.register(fork_hooks.wait_for_threads)
        fork_hooks.install_hooks()
        fork_hooks.call_in_copies(self.forget)

    def close(self) -> None:
        """At the exit: end all idle children and the fork server."""
        if self._owner != system.getpid():
            return
        with self._lock:
            idle, self._idle = self._idle, []
            booting, self._booting = self._booting, []
        for launched in booting:
            launched.abandon()
        if self._fork_client is not None:
            self._fork_client.close()
        end(idle, self.end_seconds)

    def forget(self) -> None:
        """In a forked copy: close the descriptors and leave the processes alone."""
        for child in self._idle:
            child.process.close()
        for launched in self._booting:
            launched.close()
        if self._fork_client is not None:
            self._fork_client.forget()
        self._launched = None
        self._lock = system.RLock()
        self._idle, self._booting = [], []
        self._owner = system.getpid()


def end(children: list[Child], seconds: float = END_SECONDS) -> None:
    """End idle children: they have ``seconds`` before they are killed."""
    if children:
        for child in children:
            child.channel.closed = True
        children[0].process.end_all([child.process for child in children], seconds)


def enabled() -> bool:
    """Whether children are kept; ``SIDESTAGE_POOL=0`` in the environment turns that off."""
    return os.environ.get("SIDESTAGE_POOL", "1") != "0"


pool = Pool()
