"""A call of an HTTP server's handler: the request's body in, the response out."""

from __future__ import annotations

from typing import Any

from ...dispatch import declared
from ...dispatch.calls import Call, ClientLeft, Protocol
from ...dispatch.connection import Break, Connection
from ...dispatch.declared import NOTHING_KNOWN, AnswerNote
from ...dispatch.refused import Refused
from ...dispatch.run import Run
from ...dispatch.streams import Inflow, Outflow, anew
from ...errors import ServerStopped, shown
from ...journal.journal import OVERHEAD, Journal
from ...journal.record import certificate_size
from ...pristine.waits import Deadline
from ...wire.messages import Ack, AckSoon, Close, Data, End, Lost, Message, Met
from . import messages
from .body import Body, Counted
from .faults import Fault, refuse_without_tls, response_and_fault, said
from .messages import NO_BODY, VOCABULARY, Headers, Inform, Request, Respond, Trailers, credit_of
from .request import HTTPRequest
from .responder import Responder, respond, respond_failure
from .response import TEXT_HEADERS, HTTPResponse, encoded

_SHORT = 1 << 16  # characters of a text that is one message, however it is encoded
_LARGE = 1 << 12  # bytes; what a handler has parsed of a larger request takes too much to keep


class HTTPCall(Call):
    """A request and its response."""

    request: HTTPRequest

    # Most requests come whole and get a short answer; these parts are created only if needed.
    head_sent = False
    _whole = True  # the request came whole, its answer goes whole, and the record may keep it all
    _bodiless = False  # the response has no body, whatever the handler gives
    _size = 0  # bytes of the response's body
    _first = 0  # of these, what goes with the head of a response in pieces
    _status = 0
    _fault: messages.Fault | None = None  # what goes wrong with the response
    _inflow: Inflow | None = None
    _outflow: Outflow | None = None
    _responder: Responder | None = None
    _body: Body | None = None
    _connection: Connection | None = None
    _returned = False  # the handler has
    _error: Exception | None = None  # why nothing can be sent any more
    _stopped: Exception | None = None  # why nothing more comes

    def __init__(self, run: Run, message: Request) -> None:
        self.run = run
        self.id = message.call
        self.client_address = message.peer
        self.connection = message.connection
        self.request = HTTPRequest(message, self)

    def stream(self, message: Request, limit: int, counted: Counted) -> Body:
        """Receive the body in pieces, of which ``message`` has the first."""
        self._whole = False
        self._inflow = Inflow(self.run.send, self.id)
        if message.body:
            self._inflow.feed(message.body)
        ask = self._ask_for_body if message.expects and not message.body else None
        self._body = Body(self._inflow, limit, counted, ask)
        return self._body

    def _ask_for_body(self) -> None:
        self.inform(100, "Continue", ())

    # The tunnel of a CONNECT ---------------------------------------------------------------------

    @property
    def inflow(self) -> Inflow:
        """What comes through the tunnel."""
        assert self._inflow is not None
        return self._inflow

    @property
    def outflow(self) -> Outflow:
        """What goes through the tunnel."""
        return self._response_body

    def send(self, message: Message) -> None:
        """Send a command of this call; raises ServerStopped."""
        self.run.send(message)

    def close(self, *, reset: bool, breaks: Break = "") -> None:
        """Close the tunnel for the handler, as ``ConnectedCall`` has it."""
        self.request._note_answer(self._status, self.outflow.sent)
        self.owes = not self._returned
        self.run.send(Close(call=self.id, reset=reset, returned=self._returned, breaks=breaks))

    def tunnel(self) -> Connection:
        """The connection, once the head of a 2xx response to CONNECT was sent."""
        if self._connection is None:
            self._whole = False
            self._inflow = self._inflow or Inflow(self.run.send, self.id)
            if (error := self._error or self._stopped) is not None:
                self._inflow.fail(error)
            self._connection = Connection(self, self.request._message.local, self.request.tls)
        return self._connection

    @property
    def responder(self) -> Responder:
        """The writer of a response that the handler sends by hand."""
        if self._responder is None:
            self._whole = False
            self._responder = Responder(self)
        return self._responder

    @property
    def _response_body(self) -> Outflow:
        """The stream for the response's body after its first piece."""
        if self._outflow is None:
            self._whole = False
            self._outflow = Outflow(self.run.send, self.id, self.run.unacknowledged)
            if self._error is not None:
                self._outflow.fail(self._error)
        return self._outflow

    # Events --------------------------------------------------------------------------------------

    def event(self, message: Message) -> None:
        match message:
            case Data() | End() | AckSoon():
                if self._inflow is not None:
                    self._inflow.event(message)
            case Trailers():
                self.request._trailers = message.fields
            case Ack():
                self._response_body.acknowledged(message.size)
            case Lost():
                if message.answered is not None:
                    self.request._note_answer(*message.answered)
                    self.request._without_handler = True
                self.broken(
                    ClientLeft(f"the client {self.client_address} has closed the connection")
                )
            case _:
                raise AssertionError(message)

    def stopping(self, error: Exception) -> None:
        self._stopped = self._stopped or error
        if self._inflow is not None:
            self._inflow.fail(error)

    def client_gone(self) -> None:
        super().client_gone()
        self.request._note_gone()

    def broken(self, error: Exception) -> None:
        self.request._note_gone()
        self.stopping(error)
        self._error = self._error or error
        if self._outflow is not None:  # after _error is set: _response_body reads it
            self._outflow.fail(error)

    # The response --------------------------------------------------------------------------------

    def complete(self, result: object) -> None:
        self._returned = True
        responder = self._responder
        try:
            if responder is None or not responder.begun:
                if type(result) is str and len(result) <= _SHORT:  # as most are
                    self._send_text(result)
                elif isinstance(result, Fault):
                    try:
                        refuse_without_tls(result, secured=self.request.tls is not None)
                    except ValueError as error:
                        raise Refused(error, result) from None
                    respond(self, *response_and_fault(result))
                else:
                    try:
                        response = HTTPResponse.of(result)
                    except (TypeError, ValueError) as error:
                        raise Refused(error, result) from None
                    respond(self, response)
            elif result is None:
                responder.finish()
            else:
                raise Refused(_answered_already(responder, result), result)
        except (ClientLeft, ServerStopped):
            self._close()
            raise
        self._close()

    def fail(self, error: BaseException) -> None:
        self._returned = True
        try:
            if self.request._call is self:
                self.check()  # else the record would have an answer that nobody got
                respond_failure(self, error)
        finally:
            self._close()

    def _send_text(self, text: str) -> None:
        """Send a short text, as ``HTTPResponse.of`` makes a response of it, but without one."""
        try:
            body = encoded(text)
        except ValueError as error:
            raise Refused(error, text) from None
        self.send_head(200, "OK", TEXT_HEADERS, body, length=len(body), more=False)

    # Long because of its arguments: splitting it would add a call to each request.
    def send_head(
        self,
        status: int,
        reason: str,
        headers: Headers,
        body: bytes,
        *,
        length: int | None,
        more: bool,
        fault: messages.Fault | None = None,
    ) -> None:
        """Send the head and the first piece of the body; ``more`` is whether others follow.

        ``length`` is that of the whole body in bytes, or ``None`` if it is not known yet. ``fault``
        is what goes wrong with it.
        """
        self.head_sent = True
        self._fault = fault
        method = self.request._message.method
        self._bodiless = method == "HEAD" or status in NO_BODY
        if fault is not None and method == "CONNECT":  # no tunnel is made then
            self._bodiless |= status < 300
        self._status, self._size = status, 0 if self._bodiless else len(body)
        if more:
            self._response_body.count(len(body))
            self._first = len(body)
            if fault is not None:
                self._note_fault(0)
        # Before sending: once the client has the answer, the test may read the record.
        elif fault is None and self._body is None:
            self.request._note_answer(status, self._size)
        else:
            self._note_answer()
        response = Respond(
            call=self.id,
            status=status,
            reason=reason,
            headers=headers,
            body=body,
            length=length,
            more=more,
            fault=fault,
        )
        try:
            self.run.send(response)
        except (TypeError, ValueError, OverflowError):  # no message: then it is a 500
            self.head_sent = False
            self.request._forget_answer()
            raise

    def _note_answer(self) -> None:
        """Note on the record how it is answered, and that nobody waits for the rest of its body."""
        fault = self._fault
        text = "" if fault is None else said(fault, self._size)
        status = self._status if fault is None or fault.reply else None
        self.request._note_answer(status, self._size, text)
        if self._body is not None:
            self._body.answered = True

    def _note_fault(self, more: int) -> None:
        """Note the answer before ``more`` bytes are sent, if the fault strikes after them."""
        after = None if self._fault is None else self._fault.after
        if after is not None and self._first + self._response_body.sent + more >= after:
            self._note_answer()

    def check(self) -> None:
        """Raise what tells that the client or the server is gone."""
        if self._error is not None:
            raise anew(self._error)

    def inform(self, status: int, reason: str, headers: Headers) -> None:
        """Send an informational response; blocks while the client does not read them."""
        self.check()
        message = Inform(call=self.id, status=status, reason=reason, headers=headers)
        self._response_body.wait_and_count(credit_of(message))
        self.run.send(message)

    def write(self, data: bytes | bytearray | memoryview, deadline: Deadline) -> None:
        """Send more of the body; raises TimeoutError at the deadline."""
        self._size += 0 if self._bodiless else len(data)
        if self._fault is not None:
            self._note_fault(len(data))
        self._response_body.write(data, deadline)

    def send_end(self, trailers: Headers = ()) -> None:
        """End the body: the response is complete."""
        if self.request.method == "CONNECT" and 200 <= self._status < 300 and not self._fault:
            self.tunnel().close()  # the end of the body would close only one direction
            return
        self._note_answer()
        if trailers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            self.run.send(Trailers(call=self.id, fields=lines.encode("latin-1")))
        self.run.send(End(call=self.id))

    def end_connection(self, *, reset: bool) -> None:
        """Close the client's connection for the handler, with a reset (RST) if ``reset``.

        What the handler has written is sent before. Raises ValueError if that was done before.
        """
        self.responder.abandon()
        kind = "reset" if reset else "close"
        self._fault = messages.Fault(kind=kind, reply=self.head_sent)
        self._note_answer()
        self.owes = not self._returned
        self.run.send(Close(call=self.id, reset=reset, returned=self._returned))
        self.stopping(ClientLeft("the handler has ended the connection"))

    def _close(self) -> None:
        self.request._call = None  # so that a record does not keep the call alive
        if not self._whole:
            self._close_parts()

    def _close_parts(self) -> None:
        self.request._drop_parsed()
        self._responder = None  # breaks a reference cycle
        if self._outflow is not None:
            self._outflow.close()
        if self._body is not None:
            self._body.close()
        # No event of this call comes any more, and another thread may wait for one.
        if self._connection is not None:
            self._connection._wake()
        elif self._outflow is not None:
            self._outflow.fail(ValueError("this response is complete"))

    def answered_elsewhere(self, met: Met | None = None, note: AnswerNote = NOTHING_KNOWN) -> None:
        self._returned = True
        if met is not None:
            _note_answer(self.request, met, note)
            if self._body is not None:
                self._body.answered = True
        self._close()

    def drop(self) -> None:
        try:
            self.end_connection(reset=True)
        finally:
            self._returned = True
            self._close()

    def describe(self) -> str:
        return self.request._line


def _answered_already(responder: Responder, result: object) -> TypeError:
    done = "ended its connection" if responder.abandoned else "written its response"
    return TypeError(
        f"a handler that has {done} must return None, not {type(result).__name__}: {shown(result)}"
    )


def _note_answer(request: HTTPRequest, met: Met, note: AnswerNote) -> None:
    """Note on a record what the child answers by itself."""
    text = "" if note.fault is None else said(note.fault, met.size)
    request._note_answer(met.status or None, met.size, text, delay=note.delay)


def open_call(run: Run, message: Any, journal: Journal[Any]) -> HTTPCall | None:
    """Record a request; returns its call if a handler is to run."""
    if not isinstance(message, Request):  # the trailers of one before
        run.to_call(message)
        return None
    size = len(message.fields) + len(message.target) + len(message.trailers) + len(message.body)
    if message.tls is not None:
        size += certificate_size(message.tls)
    met = message.met
    if not message.call:
        request = HTTPRequest(message)
        if met is not None and met.done:
            _note_answer(request, met, declared.answer_note(run, met))
        journal.received(request, OVERHEAD + size)
        if met is not None:
            declared.note(run, met, request, request._line)
        return None
    call = HTTPCall(run, message)
    request, call.met = call.request, met
    if message.more:  # what is kept of the body is counted then
        request._body = call.stream(message, journal.keep // 4, Counted(journal, request))
    elif size > _LARGE:
        call._whole = False
    journal.received(request, OVERHEAD + size)
    if met is not None:
        declared.note(run, met, request, request._line)
    return call


PROTOCOL = Protocol(VOCABULARY, open_call, tells_first=True)
