"""Calls that wait until the test answers them; no thread waits for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..dispatch.calls import ClientLeft
from ..dispatch.refused import Refused
from ..dispatch.streams import anew
from ..errors import StateError
from ..pristine import system
from . import keywords
from .keywords import known_keywords

if TYPE_CHECKING:
    from ..dispatch.calls import Call
    from .entry import Entry

R = TypeVar("R")

Responses = Callable[[Any, Any, Any, Any], Any]  # of a protocol, from what ``reply`` takes


class HeldCall(Generic[R]):
    """A request that waits for its answer: ``reply`` or ``reset`` it.

    In a ``with``, its connection is reset at the end unless it has its answer by then, so that a
    test that fails inside leaves no client waiting. If the test did not fail, to have left it is
    an UnmetExpectation, as without the ``with``.

    ``request`` is the request. Once the client has left, or the server has stopped, ``reply``
    raises ConnectionError.
    """

    __test__ = False

    request: R

    def __init__(self, call: Call, entry: Entry, responses: Responses, number: int) -> None:
        self.request = call.request
        self._number = number  # in the order of arrival
        self._taken = False
        self._call = call
        self._entry = entry
        self._responses = responses
        self._answered = False
        self._dropped = False  # at the end of a ``with``, as nobody had answered it
        self._guard = system.RLock()

    @known_keywords(keywords.HELD_REPLY)
    def reply(
        self,
        result: Any = None,
        status: int | None = None,
        headers: Any = None,
        *,
        content_type: str | None = None,
    ) -> None:
        """Answer with what a handler may return; the other arguments override what it says.

        Raises TypeError or ValueError for what is no answer, StateError if it has one already, and
        ConnectionError if nobody is there to be answered.
        """
        __tracebackhide__ = True
        call = self._call
        response = self._responses(result, status, headers, content_type)
        self._begin()
        try:
            call.complete(response)
        except BaseException as error:  # noqa: BLE001 - raised again, once its client is told
            raised = error.error if isinstance(error, Refused) else error
            with contextlib.suppress(ConnectionError):
                call.fail(raised)  # else its client would wait for ever
            raise raised from None
        finally:
            call.run.close_call(call)

    def reset(self) -> None:
        """Reset the connection (RST); raises StateError if it is answered already."""
        __tracebackhide__ = True
        self._begin()
        call = self._call
        try:
            call.drop()
        finally:
            call.run.close_call(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._let_go()
            return
        call = self._call
        with self._guard:
            if self._answered or not call.run.take_up(call):
                return
            self._answered = self._dropped = True
        try:
            with contextlib.suppress(ConnectionError):
                call.drop()
        finally:
            call.run.close_call(call)

    def _begin(self) -> None:
        __tracebackhide__ = True
        call = self._call
        with self._guard:
            if self._dropped:
                raise StateError(f"{self!r}: reply() or reset() inside of the `with`")
            if self._answered:
                raise StateError(f"{self!r}: a held call is answered once")
            if not call.run.take_up(call):
                raise anew(call.over or ClientLeft(f"the client {call.client_address} has left"))
            self._answered = True
        self._done()

    def _done(self) -> None:
        """Count it no more among those that are left."""
        with self._guard:
            if self in self._entry.left:
                self._entry.left.remove(self)

    def _let_go(self) -> None:
        """Reset the connection of a call that nobody can take any more."""
        with contextlib.suppress(StateError, ConnectionError):
            self.reset()

    def _is_of(self, entry: Entry) -> bool:
        """Whether it is ``entry`` that holds it."""
        return self._entry is entry

    @property
    def _is_open(self) -> bool:
        """Whether it can be answered."""
        return self._call.over is None and not self._answered

    @property
    def _client_left(self) -> bool:
        """Whether its client has left before it was answered."""
        return isinstance(self._call.over, ClientLeft)

    @property
    def _is_missed(self) -> bool:
        """Whether a client may still wait for it: it has neither left nor closed its side."""
        return not (self._client_left or self._call.client_closed)

    def __repr__(self) -> str:
        if self._dropped:
            state = "reset, as its `with` has ended without an answer"
        elif self._answered:
            state = "answered"
        elif self._call.over is not None:
            state = "its client has left" if self._client_left else "ended by the stop"
        else:
            state = "taken" if self._taken else "waits"
            state += "; its client has closed its side" if self._call.client_closed else ""
        return f"<HeldCall {self._call.describe()} {state}>"
