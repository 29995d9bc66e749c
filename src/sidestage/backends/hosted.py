"""The start of a server, under one deadline: take a child, tell it what to be, wait until it is.

A start that fails leaves nothing: its child goes back to the pool if it only could not bind, and
is ended otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
from typing import TYPE_CHECKING, Protocol

from ..errors import SidestageError, StartError, StartTimeout
from ..pristine import system
from ..pristine.imports import importing_once
from ..process import fork_hooks
from ..process.pool import Child, end, pool

if TYPE_CHECKING:
    import asyncio

    from ..dispatch.run import Run
    from ..pristine.waits import Deadline
    from ..process.channel import Channel
    from ..wire import messages as wire


_ROOT = __name__.partition(".")[0]
_NEEDED = (
    "process.fork_client",
    "dispatch.run",
    "protocols.http.request",
    "protocols.smtp.mail",
    "protocols.tcp.connection",
    "protocols.udp.datagram",
)


class Owner(Protocol):
    """What a start needs of its server.

    Both are called only once a child boots, since what they need takes time to import.
    """

    def _new_run(self, loop: asyncio.AbstractEventLoop | None, child: Child) -> Run:
        """A run of ``child``, whose coroutine handlers run on ``loop``."""
        ...

    def _configuration(self) -> wire.Configure:
        """What the child is to be."""
        ...


class Start:
    """One start: ``begin``, then ``finish`` or ``cancel``.

    ``kind`` and ``address`` are for messages. A server keeps its start, so this does not keep the
    server: a forgotten one is to be gone at once, with all that it has received.
    """

    def __init__(
        self,
        kind: str,
        address: object,
        deadline: Deadline,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.caller = system.caller_id()
        self.run: Run | None = None
        self._kind = kind
        self._address = address
        self._deadline = deadline
        self._loop = loop

    def begin(self, owner: Owner, *, fresh: bool) -> None:
        """Take a child and tell it what to be; raises StartError."""
        try:
            self._configure(owner, fresh=fresh)
        except BaseException:
            self.cancel()
            raise

    def _configure(self, owner: Owner, *, fresh: bool = False) -> None:
        with fork_hooks.launch_lock:
            child = pool.acquire(functools.partial(self._tell, owner), fresh=fresh)
            self.run = run = owner._new_run(self._loop, child)
            fork_hooks.live.add(run)

    def _tell(self, owner: Owner, channel: Channel) -> None:
        with importing_once():
            from ..process.channel import ChannelClosed

        with contextlib.suppress(ChannelClosed):  # it has died: the wait for Ready will tell
            try:
                channel.send(owner._configuration(), deadline=self._deadline)
            except TimeoutError:  # it does not even read
                raise self._not_in_time() from None

    def finish(self, owner: Owner) -> Run:
        """Wait until the child serves; raises StartError."""
        try:
            return self._bound(owner)
        except BaseException:
            self.cancel()
            raise

    def _bound(self, owner: Owner) -> Run:
        run = self.run
        assert run is not None
        run.dispatcher.wait_until(run.answered, self._deadline)
        if run.addresses is not None:
            return run
        if run.failure is not None:
            raise self._refused(run.failure)
        if run.dispatcher.connected:
            raise self._not_in_time()
        if not run.child.waited:
            raise self._died(run) from run.death
        # It had died in the pool, where nobody could notice: take another.
        self.cancel()
        self._configure(owner)
        return self._bound(owner)

    def cancel(self) -> None:
        """Let go of what was taken."""
        run, self.run = self.run, None
        if run is None:
            return
        run.detach()
        fork_hooks.live.discard(run)
        if run.failure is not None and run.dispatcher.connected:
            pool.release(run.child)
        else:
            run.child.process.kill()
            end([run.child])

    # Errors ------------------------------------------------------------------------------------

    def failed_by(self, error: BaseException) -> BaseException:
        """``error`` as a start raises it: what the system refuses is a StartError."""
        if not isinstance(error, OSError) or isinstance(error, SidestageError):
            return error
        return StartError(
            error.errno,
            f"{self._kind} could not start: {error.strerror or error}{_relief(error.errno)}",
            address=self._address,
        ).with_traceback(error.__traceback__)

    def _refused(self, failure: wire.Failed) -> StartError:
        return StartError(
            failure.errno,
            f"{self._kind} cannot listen on {self._address!r}: {failure.text}"
            f"{_advice(failure.errno, self._address)}",
            address=self._address,
        )

    def _not_in_time(self) -> StartTimeout:
        return StartTimeout(
            errno.ETIMEDOUT,
            f"{self._kind} was not ready within its start_timeout; is the machine overloaded? "
            "A larger start_timeout gives it more",
            address=self._address,
        )

    def _died(self, run: Run) -> StartError:
        how = "ended" if run.death is None else run.death.how
        return StartError(
            errno.ECHILD,
            f"the process of {self._kind} {how} before it was ready",
            address=self._address,
            stderr=run.child.stderr_tail(),
        )


def _advice(number: int | None, address: object) -> str:
    if not isinstance(address, (tuple, list)):
        if number == errno.EADDRINUSE:
            return "; a server listens on that path, or it is another kind of file"
        return "; it is taken for the path of a Unix socket"
    if number == errno.EADDRINUSE:
        return "; that port is taken, port 0 never clashes"
    if number == errno.EACCES:
        return "; ports below 1024 need privileges, port 0 does not"
    return ""


def _relief(number: int | None) -> str:
    if number in (errno.EMFILE, errno.ENFILE):
        return "; close some descriptors, or raise the limit (ulimit -n)"
    return ""


def prepare() -> None:
    """Do ahead what a first start would have to: a child, and the imports of this process."""
    pool.warm()
    with importing_once():
        for module in _NEEDED:
            importlib.import_module(f"{_ROOT}.{module}")
        importlib.import_module("psutil")  # for a stop that has to go further than to ask
