"""How sessions end: half-closed, broken off, reset, through a stop."""

from __future__ import annotations

import asyncio
import smtplib
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from kit.runs import pid_of
from kit.scripts import eventually
from kit.smtp import ENVELOPE, LONG, Bare, begin_data
from sidestage import Mail, SMTPServer

MIB = 1 << 20


def mail(number: int) -> tuple[bytes, ...]:
    return (*ENVELOPE[1:], b"DATA", b"Subject: %d" % number, b".")


THREE = (ENVELOPE[0], *mail(1), *mail(2), *mail(3))
REPLIES = [
    b"250 HELP",
    *[b"250 OK", b"250 OK", b"354 End data with <CR><LF>.<CR><LF>", b"250 OK"] * 3,
]


async def coroutine(mail: Mail) -> None:
    await asyncio.sleep(0.02)


def slow(mail: Mail) -> None:
    threading.Event().wait(0.02)


HANDLERS = [None, lambda mail: None, slow, coroutine]
NAMES = ["no handler", "a handler", "a slow handler", "a coroutine"]


def subjects(server: SMTPServer) -> list[str]:
    return [str(mail.message["Subject"]) for mail in server.received]


def texts(server: SMTPServer) -> list[str]:
    return [diagnostic.text for diagnostic in server.diagnostics]


# The client has stopped sending ----------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS, ids=NAMES)
@pytest.mark.parametrize("end", [(b"QUIT",), ()], ids=["QUIT", "no QUIT"])
def test_a_whole_session_that_was_piped_in_is_served(
    handler: Callable[[Mail], Any] | None, end: tuple[bytes, ...]
) -> None:
    with SMTPServer(handler=handler) as server, Bare(server) as client:
        client.say(*THREE, *end)
        client.finish()
        assert client.rest() == [*REPLIES, *[b"221 Bye" for _ in end]]
        assert subjects(server) == ["1", "2", "3"]
        assert texts(server) == []


def test_a_client_that_sends_before_it_is_greeted_is_served_too() -> None:
    with SMTPServer(handler=lambda mail: None) as server:
        client = Bare(server)
        client.say(*THREE, b"QUIT")
        client.finish()
        assert client.rest()[1:] == [*REPLIES, b"221 Bye"]
        client.__exit__()
        assert len(server.received) == 3


@pytest.mark.parametrize("handler", HANDLERS, ids=NAMES)
def test_the_end_right_after_a_mail_does_not_lose_its_reply(
    handler: Callable[[Mail], Any] | None,
) -> None:
    with SMTPServer(handler=handler) as server, Bare(server) as client:
        begin_data(client)
        client.say(b"Subject: 1", b".")
        client.finish()
        assert client.rest() == [b"250 OK"]
        assert subjects(server) == ["1"]
        assert texts(server) == []


def test_what_follows_quit_is_not_served_and_does_not_cost_its_reply() -> None:
    with SMTPServer() as server, Bare(server) as client:
        client.say(b"QUIT", *THREE)
        assert client.rest() == [b"221 Bye"]
        assert server.received == []
        assert texts(server) == []


def test_a_client_that_has_left_without_a_word_hears_of_nothing() -> None:
    """It has asked whether anybody listens, as scripts do that wait for a server."""
    with SMTPServer() as server:
        with Bare(server):
            pass
        with Bare(server) as client:
            client.ask(b"NOOP")
        with Bare(server) as client:
            client.finish()
            assert client.rest() == []
        assert texts(server) == []


STAGES = {
    (b"EHLO me",): "after EHLO, without a mail",
    (b"HELO me",): "after HELO, without a mail",
    (b"EHLO me", b"RSET"): "after EHLO, without a mail",
    ENVELOPE[:2]: "after MAIL FROM, without RCPT TO",
    ENVELOPE: "after RCPT TO, without DATA",
    (*ENVELOPE, b"RSET"): "after EHLO, without a mail",
    (*ENVELOPE, b"DATA"): "in DATA after 0 bytes",
    (*ENVELOPE, b"DATA", b"x" * 900, b"x" * 330): "in DATA after 1,234 bytes",
}


@pytest.mark.parametrize("how", ["closed", "reset the connection"])
@pytest.mark.parametrize("said", STAGES, ids=STAGES.get)
def test_a_dialogue_that_breaks_off_says_how_far_it_got(said: tuple[bytes, ...], how: str) -> None:
    with SMTPServer() as server:
        with Bare(server) as client:
            for line in said[:4]:
                client.ask(line)
            client.say(*said[4:])
            address = client.sock.getsockname()
            if how == "closed":
                client.finish()
                assert client.rest() == []
            else:
                assert eventually(lambda: server.stats().connections == 1)
                server.received  # noqa: B018 - so everything that was sent has been read
                client.reset()
        assert eventually(lambda: len(server.diagnostics) == 1)
        (diagnostic,) = server.diagnostics
        assert diagnostic.text == f"the client {how} {STAGES[said]}"
        assert diagnostic.client_address == address
        assert server.received == []


def test_half_a_command_is_not_carried_out() -> None:
    with SMTPServer() as server, Bare(server) as client:
        client.ask(b"EHLO me")
        client.sock.sendall(b"MAIL FROM:<a@x>")
        client.finish()
        assert client.rest() == []
        assert texts(server) == ["the client closed in the middle of the command 'MAIL FROM:<a@x>'"]


def test_the_second_mail_is_missed_after_the_first() -> None:
    with SMTPServer() as server, Bare(server) as client:
        client.say(ENVELOPE[0], *mail(1), *ENVELOPE[1:])
        client.finish()
        client.rest()
        assert subjects(server) == ["1"]
        assert texts(server) == ["the client closed after RCPT TO, without DATA"]


def test_a_client_that_leaves_after_its_mail_is_complete_is_no_matter() -> None:
    """Many leave without QUIT."""
    with SMTPServer() as server:
        with Bare(server) as client:
            client.say(ENVELOPE[0], *mail(1), b"RSET")
            client.codes(6)
        with Bare(server) as client:
            client.say(ENVELOPE[0], *mail(2), b"NOOP")
            client.codes(6)
            client.reset()
        assert subjects(server) == ["1", "2"]
        assert texts(server) == []


def test_a_reset_while_the_handler_runs_is_told_and_a_half_close_is_not(
    release: threading.Event,
) -> None:
    running = threading.Semaphore(0)

    def handler(mail: Mail) -> None:
        running.release()
        release.wait(LONG)

    with SMTPServer(handler=handler) as server:
        client, other = Bare(server), Bare(server)
        with client, other:
            for each in (client, other):
                begin_data(each)
                each.say(b"x", b".")
                assert running.acquire(timeout=LONG)
            other.finish()
            client.reset()
            assert eventually(lambda: len(server.diagnostics) == 1)
            assert texts(server) == ["the client reset the connection before the reply to its mail"]
            release.set()
            assert other.rest() == [b"250 OK"]


# The server stops ------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS, ids=NAMES)
@pytest.mark.parametrize("ends", [True, False], ids=["half-closed", "open"])
def test_a_session_sent_before_the_stop_is_served_to_its_end(
    handler: Callable[[Mail], Any] | None, ends: bool
) -> None:
    server = SMTPServer(handler=handler).start()
    with Bare(server) as client:
        client.say(*THREE, b"QUIT")
        if ends:
            client.finish()
        assert server.stop(LONG).clean
        assert client.rest() == [*REPLIES, b"221 Bye"]
    assert subjects(server) == ["1", "2", "3"]
    assert texts(server) == []


def test_much_that_was_sent_before_the_stop_is_served_too(release: threading.Event) -> None:
    """More than the server reads while a handler runs: the rest is read when that returns."""
    running = threading.Event()

    def handler(mail: Mail) -> None:
        running.set()
        release.wait(LONG)

    count = 40
    server = SMTPServer(handler=handler).start()
    with Bare(server) as client:
        big = (*ENVELOPE[1:], b"DATA", *[b"x" * 900] * 10, b".")
        client.say(ENVELOPE[0], *big * count)
        client.finish()
        assert running.wait(LONG)
        stopper = threading.Thread(target=server.stop, args=(LONG,))
        stopper.start()
        release.set()
        replies = client.rest()
        stopper.join(LONG)
    assert len(server.received) == count
    assert len(replies) == 1 + 4 * count
    assert server.stop_report.clean


def test_many_commands_sent_before_the_stop_are_served_too() -> None:
    """More than the server reads at once."""
    server = SMTPServer().start()
    with Bare(server) as client:
        client.say(ENVELOPE[0], *[b"NOOP"] * 40_000, *mail(1), b"QUIT")
        stopper = threading.Thread(target=server.stop, args=(LONG,))
        stopper.start()
        replies = client.rest()
        stopper.join(LONG)
    assert len(replies) == 1 + 40_000 + 4 + 1
    assert replies[-1] == b"221 Bye"
    assert subjects(server) == ["1"]


def test_a_session_without_an_end_gets_421_once_what_was_sent_is_served() -> None:
    server = SMTPServer(handler=slow).start()
    with Bare(server) as client:
        client.say(*THREE)
        assert server.stop(LONG).clean
        assert client.rest() == [*REPLIES, b"421 4.3.2 the server is stopping"]
    assert texts(server) == []


# A client that does not read -------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"NOOP", b"EHLO me", b"HELP"])
def test_a_client_that_does_not_read_its_replies_is_not_read_either(line: bytes) -> None:
    """The server's process keeps some buffers of it, whatever it sends."""
    with SMTPServer() as server, Bare(server) as client:
        process = psutil.Process(pid_of(server))
        before = process.memory_info().rss
        client.sock.setblocking(False)
        sent, flood = 0, (line + b"\r\n") * 20_000
        stuck = threading.Event()
        while sent < 256 * MIB and not stuck.is_set():
            try:
                sent += client.sock.send(flood)
            except BlockingIOError:
                client.sock.settimeout(1.0)
                try:
                    sent += client.sock.send(flood)
                    client.sock.setblocking(False)
                except TimeoutError:
                    stuck.set()
        assert stuck.is_set()
        assert process.memory_info().rss - before < 8 * MIB
        with smtplib.SMTP(server.host, server.port, "me", LONG) as other:
            assert other.noop()[0] == 250
