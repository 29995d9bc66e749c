"""A call of a TCP server's handler: a connection from open to end, and its transcript."""

from __future__ import annotations

from typing import Any

from ...dispatch.calls import Call, ClientLeft, Protocol
from ...dispatch.connection import Break, Connection
from ...dispatch.refused import Refused
from ...dispatch.run import Run
from ...dispatch.streams import Inflow, Outflow
from ...errors import ServerStopped, shown
from ...journal.journal import OVERHEAD, Journal
from ...journal.record import Answer, certificate_size, details_or_none
from ...pristine import system
from ...pristine.imports import importing_once
from ...pristine.waits import Clock
from ...wire.messages import Ack, AckSoon, Close, Data, End, Lost, Message
from .messages import VOCABULARY, Opened, TranscriptIn
from .transcript import Transcript

_SHOWN = 1 << 10  # bytes of what has come, in a report
_BROKEN: dict[Break, str] = {
    "": "",
    "in_record": " in a TLS record",
    "without_notify": " without close_notify",
}
_STOPPED = "closed by the stop of the server"


class TCPCall(Call):
    """A connection and its transcript."""

    request: Connection
    cancels = False  # reading and writing tell it, and what it does then is its own affair

    def __init__(self, run: Run, message: Opened, journal: Journal[Any]) -> None:
        super().__init__(run, message.call, message.peer)
        self.connection = message.connection
        self.inflow = Inflow(run.send, message.call)
        self.outflow = Outflow(run.send, message.call, run.unacknowledged)
        self.send = run.send
        self._tls = details_or_none(message.tls)
        self.request = Connection(self, message.local, self._tls)
        self._opened_at = self._came = message.at
        self._local = message.local
        self._journal: Journal[Any] | None = journal  # until the transcript is recorded
        self._keep = journal.keep // 4  # bytes
        self._guard = system.Lock()  # of what is kept, until it is recorded
        self._data = bytearray()
        self._cut = 0
        self._returned = False  # the handler has
        self._transcript: Transcript | None = None

    @property
    def came(self) -> float:
        """When data came last: a connection may be older than the test that uses it."""
        return self._came

    def complete(self, result: object) -> None:
        self._returned = True
        if isinstance(result, (bytes, bytearray, memoryview)):
            self.request.sendall(result)
        elif result is not None:
            error = TypeError(
                "the handler of a TCP server may return None, or bytes to send before the "
                f"close, not {type(result).__name__}: {shown(result)}"
            )
            raise Refused(error, result)
        self.request.close()
        self._close()

    def _close(self) -> None:
        del self.request  # breaks a reference cycle
        self.outflow.close()

    def fail(self, error: BaseException) -> None:
        self._returned = True
        try:
            if isinstance(error, ServerStopped):  # not the handler's fault
                self._ended(_STOPPED)
                self.request.close()
            else:
                self.request.reset()
        finally:
            self._close()

    def close(self, *, reset: bool, breaks: Break = "") -> None:
        """Close the connection for the handler, as ``ConnectedCall`` has it."""
        self._ended(f"{'reset' if reset else 'closed'} by the handler{_BROKEN[breaks]}")
        self._note_answer()
        self.owes = not self._returned
        self.run.send(Close(call=self.id, reset=reset, returned=self._returned, breaks=breaks))

    def event(self, message: Message) -> None:
        match message:
            case Data():
                self._came = Clock.monotonic()
                self._store(message.data)
                self.inflow.feed(message.data)
            case AckSoon():
                self.inflow.event(message)
            case Ack():
                self.outflow.acknowledged(message.size)
            case End():
                self.inflow.end()
                self._ended("closed by the client")
            case Lost():
                self._lost(message.reset)
            case _:
                raise AssertionError(message)

    def _store(self, data: bytes) -> None:
        """Keep ``data`` for the transcript, as far as there is room."""
        with self._guard:
            if self._journal is None:  # recorded
                return
            kept, size = 0, len(data)
            if not self._cut:  # what is kept is the beginning
                room = self._keep - len(self._data)
                kept = self._journal.hold(size if size <= room else room)
            self._data += data[:kept]
            self._cut += size - kept

    def _lost(self, reset: bool) -> None:
        gone = ClientLeft(f"the client {self.client_address} has closed the connection")
        self._ended("reset by the client" if reset else "closed by the client")
        self.inflow.fail(gone)
        self.outflow.fail(gone)

    def stopping(self, error: Exception) -> None:
        self.inflow.fail(error)

    def broken(self, error: Exception) -> None:
        self._ended(_STOPPED)
        self.inflow.fail(error)
        self.outflow.fail(error)

    def _ended(self, how: str) -> None:
        with self._guard:
            journal, self._journal = self._journal, None
        if journal is None:
            return
        self._transcript = Transcript(
            client_address=self.client_address,
            server_address=self._local,
            data=bytes(self._data),
            ended=how,
            cut=self._cut,
            received_at=self._opened_at,
            connection_number=self.connection,
            tls=self._tls,
        )
        self._note_answer()
        journal.let_go(len(self._data))
        journal.received(self._transcript, OVERHEAD + len(self._data))
        self._data.clear()
        self.run.reader.changed.notify()

    def _note_answer(self) -> None:
        """Update the transcript's answer: a handler may still send after the client's end."""
        now, sent = Clock.monotonic(), self.outflow.sent
        answer = Answer(at=now, status=None, size=sent, seconds=now - self._opened_at)
        if self._transcript is not None:
            object.__setattr__(self._transcript, "answer", answer)  # frozen for its users

    def describe(self) -> str:
        return "a connection"

    def since(self) -> float:
        return self._opened_at

    def so_far(self) -> str:
        with importing_once():
            from .shown import so_far
        with self._guard:
            data, size = bytes(self._data[:_SHOWN]), len(self._data) + self._cut
        return so_far(data, size, self.outflow.sent)


def open_call(run: Run, message: Any, journal: Journal[Any]) -> TCPCall | None:
    """Return the call of a connection for a handler; or record a finished connection."""
    if isinstance(message, Opened):
        return TCPCall(run, message, journal)
    assert isinstance(message, TranscriptIn)
    end = message.at + message.seconds
    transcript = Transcript(
        client_address=message.peer,
        server_address=message.local,
        data=message.data,
        ended=message.ended,
        cut=message.cut,
        received_at=message.at,
        connection_number=message.connection,
        answer=Answer(at=end, status=None, size=0, seconds=message.seconds),
        tls=details_or_none(message.tls),
    )
    journal.received(transcript, OVERHEAD + len(message.data) + certificate_size(message.tls))
    return None


PROTOCOL = Protocol(VOCABULARY, open_call)
