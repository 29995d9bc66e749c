"""One call of a handler: what it is for, how it runs, and what becomes of its result.

A protocol derives its own kind of call, which knows how to answer; the run that owns the calls
knows no protocol.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ServerStopped
from ..journal.facts import Address, Diagnostic
from ..journal.frames import place_of
from ..journal.record import Record
from ..wire.messages import Close, Message, Met, Vocabulary
from . import declared
from .refused import Refused

if TYPE_CHECKING:
    import asyncio

    from ..journal.journal import Journal
    from .coroutines import Running
    from .run import Run

# What most handlers return, as to ask whether something is an Awaitable takes some calls.
_NEVER_AWAITED = frozenset({str, bytes, NoneType, dict, list, tuple, int})

# The call whose handler is the caller, if it is one.
current: contextvars.ContextVar[Call] = contextvars.ContextVar("sidestage_call")


class Protocol(NamedTuple):
    """A protocol as the test's process needs it; each protocol's ``call`` module has one."""

    vocabulary: Vocabulary
    open: Opener
    tells_first: bool = False  # the child tells of a request before it answers it
    asks: bool = False  # the child asks what no handler answers, of a layer
    at_once: int = 1 << 12  # handlers that may run at a time; others wait for one to return


# Records an event of the child in a journal; returns the call if a handler is to run.
Opener = Callable[["Run", Any, "Journal[Any]"], "Call | None"]


class Call:
    """A request and its answer; what a protocol does not need, it leaves as it is here.

    The call is also the job that a handler thread runs.
    """

    request: Any
    handler: Callable[..., Any] | None = None  # that was called
    connection = 0  # the number of the connection
    known_to_child = True  # the child knows of it and waits for it when it drains
    owes = False  # the child has ended it, and is to be told when the handler has returned
    holds = 0  # bytes that the run counts for it
    awaits: Awaitable[Any] | None = None  # what a coroutine handler runs
    client_closed = False  # the client of a held call has closed its side; it may still read
    gone = False  # its client is, or counts as gone
    cancels = True  # its handler is cancelled when its client is gone, if it is a coroutine
    unwanted = False  # it was
    coroutine: Running | None = None  # its handler's, if it is one
    met: Met | None = None  # what expectations have made of it, if the server has any
    idle = False  # nothing of ours works at it: the child is to choose, or the test to answer
    is_held = False  # the test is to answer
    over: Exception | None = None  # why it has ended while nothing worked at it
    on_behalf = "the handler"  # what of the test's runs for it

    def __init__(self, run: Run, id: int, client_address: Address) -> None:  # noqa: A002 - it is one
        self.run = run
        self.id = id
        self.client_address = client_address

    @property
    def came(self) -> float:
        """When what the handler answers came, in seconds on the monotonic clock."""
        at: float = self.request.received_at
        return at

    # What each protocol has its own way to do ----------------------------------------------------

    def complete(self, result: object) -> None:
        """Answer with what the handler returned; raises Refused if that is no answer."""
        raise AssertionError("each protocol has its own")

    def fail(self, error: BaseException) -> None:
        """Answer with the protocol's failure."""
        raise AssertionError("each protocol has its own")

    def event(self, message: Message) -> None:
        """Take an event on this call."""

    def client_gone(self) -> None:
        """Note that the client is gone, or counts as gone."""
        self.gone = True

    def stopping(self, error: Exception) -> None:
        """Wake a handler that waits for its client."""

    def broken(self, error: Exception) -> None:
        """The server is gone: every further I/O of the handler raises ``error``."""
        self.stopping(error)

    def answered_elsewhere(
        self, met: Met | None = None, note: declared.AnswerNote = declared.NOTHING_KNOWN
    ) -> None:
        """Note that nothing of ours answers any more: the child does, if ``met`` says so."""

    def drop(self) -> None:
        """Reset the connection in place of an answer; raises ServerStopped."""
        self.run.send(Close(call=self.id, reset=True))

    def describe(self) -> str:
        """The request as messages name it."""
        return type(self.request).__name__

    def since(self) -> float:
        """When its request came, in seconds on the monotonic clock."""
        at: float = self.request.received_at
        return at

    def so_far(self) -> str:
        """What has come and gone that no record tells yet; empty if there is nothing."""
        return ""

    # Running the handler -------------------------------------------------------------------------

    def __call__(self) -> None:
        """Run the handler and answer, or start awaiting it."""
        __tracebackhide__ = True
        run = self.run
        if run.ended:  # nobody would see the result; the report names the call
            return
        context = run.context.copy()
        try:
            if self.met is not None and self.met.asks:
                if context.run(self._judge, self.met.asks):
                    return  # the child chooses
            elif (coroutine := context.run(self._handle)) is not None:
                run.await_soon(self, coroutine, context)
                return
        except BaseException as error:  # noqa: BLE001 - raised in the test, at the stop
            self.failed(error)
        run.close_call(self)

    def _handle(self) -> Awaitable[Any] | None:
        """Call the handler, and answer; returns what has to be awaited first, if anything."""
        __tracebackhide__ = True
        current.set(self)
        slot, met = self.run.slot, self.met
        if met is None:
            self.handler = slot.handler
            result = slot.run_handler(self.request)
        else:
            self.handler = declared.handler_of(self, met)
            result = slot.run_handler(self.request, self.handler)
        # A list of records refuses to be awaited, which its type has to have a method for.
        if (
            type(result) not in _NEVER_AWAITED
            and isinstance(result, Awaitable)
            and not isinstance(result, list)
        ):
            return result
        self.complete(result)
        return None

    def _judge(self, asks: tuple[int, ...]) -> bool:
        """Tell the child which expectations the request meets; returns whether Chosen follows."""
        __tracebackhide__ = True
        current.set(self)
        return declared.judge(self, asks)

    def awaited(self, context: contextvars.Context, task: asyncio.Future[Any]) -> None:
        """Answer with the result of a coroutine handler; runs on a handler thread, may block."""
        self.run.threads.ended_awaiting()
        try:
            if task.cancelled() and self.coroutine is not None and self.coroutine.cancelled:
                raise self._why_cancelled()  # by us, so it is not the handler's error
            context.run(lambda: self.complete(task.result()))
        except BaseException as error:  # noqa: BLE001 - raised in the test, at the stop
            self.failed(error)
        self.run.close_call(self)

    def _why_cancelled(self) -> Exception:
        if self.gone:
            return ClientLeft(f"the client {self.client_address} is gone")
        return ServerStopped(f"{self.run.label} has stopped, so its clients are gone")

    def cancel(self) -> None:
        """Cancel the handler, if it is a coroutine, or as soon as it has returned one."""
        self.unwanted = True
        if self.coroutine is not None:
            self.coroutine.cancel()

    def failed(self, error: BaseException) -> None:
        """Note what the handler raised, and answer with the protocol's failure."""
        run = self.run
        if isinstance(error, Refused):
            error = error.told_at(run.slot.source(self.handler))
        if isinstance(error, ServerStopped) and (run.stopping or run.ended or run.broken):
            pass  # expected; but the child must not wait for more
        elif isinstance(error, ClientLeft):
            text = f"the client left before the handler was done with {self.describe()}"
            run.journal.diagnosed(
                Diagnostic(client_address=self.client_address, text=text),
                connection=self.connection,
            )
        else:
            why = (
                f"raised by {self.on_behalf} of {run.label} "
                f"for {self.describe()} from {self.client_address or 'an unnamed client'}"
            )
            cause = run.journal.failed(
                error,
                why,
                connection=self.connection,
                came=self.came,
                place=place_of(run.slot.handler if self.met is None else self.handler),
            )
            if cause is not None and isinstance(self.request, Record):
                self.request._note_cause(cause)
        try:
            self.fail(error)
        except (ServerStopped, ConnectionError):  # nobody is there to answer
            pass
        except BaseException as other:  # noqa: BLE001 - of the error's own class; the call must end
            run.journal.failed(other, connection=self.connection)


class ClientLeft(ConnectionResetError):
    """The client closed or reset its connection while the handler was still talking to it."""
