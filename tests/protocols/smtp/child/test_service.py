"""SMTP in the child, driven without sockets: bytes in, messages and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidestage.child.iteration import Iteration
from sidestage.child.net.stream import Transport as BaseTransport
from sidestage.protocols.smtp.child.service import SMTPConnection, SMTPService
from sidestage.protocols.smtp.messages import MailIn, MailReply, SMTPSettings
from sidestage.wire.messages import Configure, Diagnostic, Lost, Message, Overdue

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken
ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"


class Outbox:
    """Records the messages to the parent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    record = note = send

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]


class Transport(BaseTransport):
    """Records the bytes to the client, and how the connection is ended."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.out = bytearray()
        self.unsent = 0
        self.reading = True
        self.ended = ""

    def write(self, data: Any) -> None:
        self.out += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def close_lingering(self) -> None:
        self.ended = self.ended or "lingering"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def has_unread(self) -> bool:
        return not self.reading

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Server:
    """A service with connections, on a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.outbox = Outbox()
        self.service = self._service()
        self.connections: list[SMTPConnection] = []

    def _service(self, **options: Any) -> SMTPService:
        given: dict[str, Any] = {"handler_timeout": 30.0, "keep": 1 << 26}
        given |= {name: options.pop(name) for name in list(options) if name in given}
        config = Configure(
            protocol="smtp", settings=b"", host="", port=0, path=None, cwd=None, poll_interval=1.0,
            backlog=1, **given,
        )  # fmt: skip
        outbox: Any = self.outbox
        return SMTPService(Iteration(self.loop, outbox), config, SMTPSettings(**options))

    def configure(self, **options: Any) -> None:
        self.service = self._service(**options)

    def connect(self) -> tuple[SMTPConnection, Transport]:
        connection, transport = SMTPConnection(self.service), Transport()
        connection.connection_made(transport)
        self.connections.append(connection)
        self.turn()
        return connection, transport

    def say(self, connection: SMTPConnection, *pieces: bytes) -> None:
        for piece in pieces:
            connection.data_received(piece)
            self.turn()

    def turn(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))

    def until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until ``condition`` is true."""

        async def met() -> None:
            async with asyncio.timeout(LONG):
                while not condition():  # noqa: ASYNC110 - conditions of several kinds
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(met())

    def texts(self) -> list[str]:
        return [diagnostic.text for diagnostic in self.outbox.of(Diagnostic)]

    def lose(self, connection: SMTPConnection, error: Exception | None) -> None:
        self.connections.remove(connection)
        connection.stream.close()
        connection.connection_lost(error)
        self.turn()

    def close(self) -> None:
        for connection in list(self.connections):
            self.lose(connection, None)
        self.service.calls.end()
        self.turn()
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def last(transport: Transport) -> str:
    return transport.out.decode().split("\r\n")[-2]


# Silence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said, stage",
    [
        (b"", ""),
        (b"EHLO me\r\n", ", after EHLO, without a mail"),
        (ENVELOPE, ", after RCPT TO, without DATA"),
        (ENVELOPE + b"DATA\r\nhalf a ma", ", in DATA after 9 bytes"),
        (ENVELOPE + b"DATA\r\nx\r\n.\r", ", in DATA after 5 bytes"),
    ],
)
def test_a_client_that_says_nothing_gets_421(server: Server, said: bytes, stage: str) -> None:
    server.service.idle_seconds = 0.02
    connection, transport = server.connect()
    if said:
        server.say(connection, said)
    server.until(lambda: bool(transport.ended))
    assert transport.ended == "lingering"
    assert last(transport) == "421 4.4.2 nothing came for too long"
    assert server.texts() == [f"sent 421 4.4.2 nothing came for too long: 0.02 s{stage}"]


def test_a_client_that_does_not_even_read_is_dropped(server: Server) -> None:
    server.service.idle_seconds = 0.02
    _, transport = server.connect()
    transport.unsent = 1
    server.until(lambda: bool(transport.ended))
    assert transport.ended == "aborted"


def test_a_client_that_goes_on_is_not_silent(server: Server) -> None:
    """However long its mail takes."""
    server.service.idle_seconds = 0.2
    connection, transport = server.connect()
    server.say(connection, ENVELOPE + b"DATA\r\n")

    async def trickle() -> None:
        for _ in range(30):
            connection.data_received(b"x")
            await asyncio.sleep(0.02)

    server.loop.run_until_complete(trickle())
    server.say(connection, b"\r\n.\r\n")
    assert last(transport) == "250 OK"
    assert server.texts() == []


def test_the_silence_of_a_client_whose_handler_runs_does_not_count(server: Server) -> None:
    server.configure(handler_timeout=None)
    server.service.handled = True
    server.service.idle_seconds = 0.02
    connection, transport = server.connect()
    server.say(connection, ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    server.loop.run_until_complete(asyncio.sleep(0.1))
    (mail,) = server.outbox.of(MailIn)
    assert not server.outbox.of(Overdue)
    server.service.idle_seconds = LONG
    server.service.command(MailReply(call=mail.call, reply="250 at last"))
    server.turn()
    assert last(transport) == "250 at last"


def test_nobody_is_silent_while_the_test_is_debugged(server: Server) -> None:
    server.service.idle_seconds = 0.02
    _, transport = server.connect()
    answered = 0

    async def debug() -> None:
        nonlocal answered
        while answered < 3:
            await asyncio.sleep(0.005)
            for asked in server.outbox.of(Overdue)[answered:]:
                server.service.calls.postponed(asked.token, wanted=True)
                answered += 1

    server.loop.run_until_complete(asyncio.wait_for(debug(), LONG))
    assert not transport.ended
    assert server.texts() == []


# Limits ----------------------------------------------------------------------------------------


def test_mails_under_way_are_bounded_together(server: Server) -> None:
    server.configure(size_limit=200_000, keep=1)  # twice the size limit
    piece = b"x" * 998 + b"\r\n"
    ends = [server.connect() for _ in range(4)]
    (first, first_out), (second, _), (third, third_out), (small, small_out) = ends
    for connection in (first, second):
        server.say(connection, ENVELOPE + b"DATA\r\n", piece * 190)
    server.say(third, ENVELOPE + b"DATA\r\n", piece * 10)
    server.say(third, piece * 180)
    assert server.service.unfinished < 400_000
    server.say(third, b".\r\n")
    assert last(third_out) == "452 4.3.1 too many large mails at once"
    server.say(third, ENVELOPE + b"DATA\r\n", piece * 180)
    server.say(small, ENVELOPE + b"DATA\r\n", piece * 50 + b".\r\n")
    assert last(small_out) == "250 OK"
    server.say(first, b".\r\n")
    assert last(first_out) == "250 OK"
    assert [len(mail.data) for mail in server.outbox.of(MailIn)] == [50_000, 190_000]
    server.say(second, b".\r\n")
    server.say(third, b".\r\n")
    assert server.service.unfinished == 0


def test_one_mail_alone_is_never_too_much(server: Server) -> None:
    """Not even if added dots make more of it than it has."""
    server.configure(size_limit=300_000, keep=1)
    connection, transport = server.connect()
    server.say(connection, ENVELOPE + b"DATA\r\n", b"..\r\n" * 100_000, b".\r\n")
    assert last(transport) == "250 OK"
    assert [len(mail.data) for mail in server.outbox.of(MailIn)] == [300_000]


def test_a_mail_that_is_broken_off_gives_its_space_back(server: Server) -> None:
    for how in ("closed", "lost"):
        connection, transport = server.connect()
        server.say(connection, ENVELOPE + b"DATA\r\n", b"x" * 600)
        assert server.service.unfinished > 600
        if how == "closed":
            connection.eof_received()
            server.turn()
            assert transport.ended == "closed"
        else:
            server.lose(connection, ConnectionResetError())
        assert server.service.unfinished == 0


def test_what_nobody_reads_is_not_kept(server: Server) -> None:
    """While a handler runs, the client is held back."""
    server.service.handled = True
    connection, transport = server.connect()
    server.say(connection, ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert transport.reading
    server.say(connection, b"NOOP\r\n" * 20_000)
    assert not transport.reading
    assert connection.is_behind()
    (mail,) = server.outbox.of(MailIn)
    server.service.command(MailReply(call=mail.call, reply="250 OK"))
    server.turn()
    server.until(lambda: transport.out.count(b"250 OK\r\n") == 20_003)
    assert transport.reading
    assert not connection.is_behind()


def test_a_client_that_sends_much_lets_others_have_their_turn(server: Server) -> None:
    """And lets its replies be sent, so that it is held back if it does not read them."""
    busy, busy_out = server.connect()
    other, other_out = server.connect()
    busy.data_received(b"HELP\r\n" * 5_000)
    other.data_received(b"NOOP\r\n")
    server.turn()
    assert last(other_out) == "250 OK"
    assert busy_out.out.count(b"214 ") < 1_000
    server.until(lambda: busy_out.out.count(b"214 ") == 5_000)


# The end ---------------------------------------------------------------------------------------


def test_a_reset_ends_the_call(server: Server) -> None:
    server.service.handled = True
    connection, _ = server.connect()
    server.say(connection, ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    (mail,) = server.outbox.of(MailIn)
    server.lose(connection, ConnectionResetError())
    assert server.outbox.of(Lost) == [Lost(call=mail.call, reset=True)]
    assert server.texts() == ["the client reset the connection before the reply to its mail"]


def test_a_reset_by_a_client_that_does_not_read_names_what_it_waits_for(server: Server) -> None:
    connection, _ = server.connect()
    connection.pause_writing()
    server.say(connection, b"EHLO me\r\n", b"NOOP\r\nHELP\r\n")
    server.lose(connection, ConnectionResetError())
    assert server.texts() == ["the client reset the connection before the reply to 'NOOP'"]


def test_a_session_is_the_same_however_it_is_cut(server: Server) -> None:
    stream = ENVELOPE + b"DATA\r\n..x\r\n.\r\nMAIL FROM:<c@x>\r\nRSET\r\nQUIT\r\n"
    whole, whole_out = server.connect()
    server.say(whole, stream)
    for size in (1, 2, 7):
        connection, transport = server.connect()
        server.say(connection, *(stream[at : at + size] for at in range(0, len(stream), size)))
        assert transport.out == whole_out.out
        assert transport.ended == "closed"
    assert {mail.data for mail in server.outbox.of(MailIn)} == {b".x\r\n"}
    assert len(server.outbox.of(MailIn)) == 4


def test_a_defect_ends_the_connection(server: Server) -> None:
    connection, transport = server.connect()

    async def broken(argument: str) -> None:
        raise LookupError("a defect")

    connection._smtp_methods["NOOP"] = broken
    noted: list[Any] = []
    server.loop.set_exception_handler(lambda loop, context: noted.append(context["exception"]))
    server.say(connection, b"NOOP\r\n")
    assert transport.ended == "aborted"
    assert [type(error) for error in noted] == [LookupError]
