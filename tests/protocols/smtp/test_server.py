"""SMTP servers, with smtplib and plain sockets as clients."""

from __future__ import annotations

import asyncio
import os
import smtplib
import threading
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.smtp import Envelope

from kit.smtp import ENVELOPE, LONG, Bare, begin_data
from sidestage import Mail, SMTPServer
from sidestage.child.channel import Outbox
from sidestage.child.iteration import Iteration
from sidestage.journal.journal import OVERHEAD
from sidestage.protocols.smtp.child.service import SMTPService
from sidestage.protocols.smtp.messages import SMTPSettings
from sidestage.wire import frames


@pytest.fixture
def recorder() -> Iterator[SMTPServer]:
    with SMTPServer() as server:
        yield server


def send(server: SMTPServer, body: str = "text", to: list[str] | None = None) -> Any:
    with smtplib.SMTP(server.host, server.port, "me", LONG) as client:
        return client.sendmail("a@x", to or ["b@y"], f"Subject: s\r\n\r\n{body}\r\n")


# Handlers and what they return -----------------------------------------------------------------


class Refuse:
    """Callables of several kinds."""

    def method(self, mail: Mail) -> str:
        return f"550 no {mail.rcpt_tos[0]}"

    async def coroutine(self, mail: Mail) -> str:
        await asyncio.sleep(0)
        return self.method(mail)


@pytest.mark.parametrize("how", ["method", "coroutine"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_client_gets_the_handlers_reply(host: str, how: str) -> None:
    with (
        SMTPServer((host, 0), getattr(Refuse(), how)) as server,
        pytest.raises(smtplib.SMTPDataError) as caught,
    ):
        send(server)
    assert (caught.value.smtp_code, caught.value.smtp_error) == (550, b"no b@y")


@pytest.mark.parametrize("handler", [None, lambda mail: None], ids=["no", "yes"])
def test_without_a_reply_a_mail_is_accepted(handler: Callable[[Mail], None] | None) -> None:
    with SMTPServer(handler=handler) as server:
        assert send(server) == {}
        assert len(server.received) == 1


def test_a_reply_of_several_lines_arrives_as_such() -> None:
    with (
        SMTPServer(handler=lambda mail: "554-one\r\n554 two") as server,
        pytest.raises(smtplib.SMTPDataError, match="one\\\\ntwo"),
    ):
        send(server)


def test_each_mail_of_a_session_gets_its_own_reply() -> None:
    replies = iter(["250 first", "451 second", "250 third"])
    with (
        SMTPServer(handler=lambda mail: next(replies)) as server,
        smtplib.SMTP(server.host, server.port, "me", LONG) as client,
    ):
        client.sendmail("a@x", "b@y", "1")
        with pytest.raises(smtplib.SMTPDataError, match="second"):
            client.sendmail("a@x", "b@y", "2")
        client.sendmail("a@x", "b@y", "3")
        assert [mail.data for mail in server.received] == [b"1\r\n", b"2\r\n", b"3\r\n"]


@pytest.mark.parametrize(
    "result, error, text",
    [
        (250, TypeError, r"None \(250\) or a reply"),
        (b"250 OK", TypeError, r"None \(250\) or a reply"),
        ("no", ValueError, "is no SMTP reply"),
        ("", ValueError, "is no SMTP reply"),
        ("199 low", ValueError, "is no SMTP reply"),
        ("250 OK\r\n250 again", ValueError, "is no SMTP reply"),
        ("٢٥٠ OK", ValueError, "is no SMTP reply"),
        ("250 \udcff", UnicodeEncodeError, "surrogates"),
    ],
)
def test_a_result_that_is_no_reply_fails_the_test_and_is_a_451(
    result: object, error: type[Exception], text: str
) -> None:
    server = SMTPServer(handler=lambda mail: result).start()
    with pytest.raises(smtplib.SMTPDataError) as caught:
        send(server)
    assert caught.value.smtp_code == 451
    with pytest.raises(error, match=text):
        server.stop()


def test_what_a_handler_raises_is_raised_at_the_stop_and_is_a_451() -> None:
    def fail(mail: Mail) -> None:
        assert mail.mail_from == "somebody else"

    server = SMTPServer(handler=fail).start()
    with pytest.raises(smtplib.SMTPDataError, match="AssertionError"):
        send(server)
    with pytest.raises(AssertionError) as caught:
        server.stop()
    assert "the mail from 'a@x'" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "error, told",
    [
        (AssertionError("want \xe9\r\n250 OK"), b"AssertionError: want \\xe9"),
        (KeyError(), b"KeyError"),
        (ValueError("x" * 5000), b"ValueError: " + b"x" * 188),
    ],
    ids=["a text", "no text", "a long text"],
)
def test_the_client_is_told_what_the_handler_raised(error: Exception, told: bytes) -> None:
    def fail(mail: Mail) -> None:
        raise error

    server = SMTPServer(handler=fail).start()
    with pytest.raises(smtplib.SMTPDataError) as caught:
        send(server)
    assert caught.value.smtp_error == b"4.3.0 the handler raised " + told
    with pytest.raises(type(error)):
        server.stop()


def test_a_handler_that_takes_too_long_is_a_451() -> None:
    go_on = threading.Event()
    with SMTPServer(handler=lambda mail: go_on.wait(LONG) and None, handler_timeout=0.05) as server:
        with pytest.raises(smtplib.SMTPDataError, match="no answer in time"):
            send(server)
        go_on.set()
        assert "no answer" in server.diagnostics[0].text


def test_a_handler_can_mail_to_its_own_server() -> None:
    def forward(mail: Mail) -> None:
        if mail.rcpt_tos == ["list@y"]:
            send(server, to=["one@y"])

    with SMTPServer(handler=forward) as server:
        send(server, to=["list@y"])
        assert [mail.rcpt_tos for mail in server.received] == [["list@y"], ["one@y"]]


def test_handlers_that_block_do_not_delay_each_other() -> None:
    together = threading.Barrier(5, timeout=LONG)
    with SMTPServer(handler=lambda mail: f"250 {together.wait()}") as server:
        senders = [threading.Thread(target=send, args=(server,)) for _ in range(5)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(LONG)
        assert len(server.received) == 5


# The mail --------------------------------------------------------------------------------------


def test_a_mail_knows_its_envelope(recorder: SMTPServer) -> None:
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        name = client.sock.getsockname()
        client.sendmail("a@x", ["b@y", "c@y", "d@z"], "text", mail_options=["BODY=8BITMIME"])
    mail = recorder.received[0]
    assert (mail.mail_from, mail.rcpt_tos, mail.helo) == ("a@x", ["b@y", "c@y", "d@z"], "me")
    assert mail.peer == mail.client_address == name
    assert mail.mail_options == ["SIZE=4", "BODY=8BITMIME"]
    assert (mail.auth, mail.tls) == (None, None)
    assert repr(mail) == "<Mail from 'a@x' to ['b@y', 'c@y', 'd@z']: no subject>"


def test_a_bounce_has_an_empty_sender(recorder: SMTPServer) -> None:
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        client.sendmail("", ["b@y"], "text")
    assert recorder.received[0].mail_from == ""


def test_the_message_is_parsed(recorder: SMTPServer) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x", "b@y", "Grüße aus Köln"
    message.set_content("Hallo Welt — ü\n")
    message.add_attachment(bytes(range(256)), "application", "x-test", filename="all.bin")
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        client.send_message(message)
    got = recorder.received[0].message
    assert got["Subject"] == "Grüße aus Köln"
    body = got.get_body()
    assert body is not None
    assert body.get_content() == "Hallo Welt — ü\n"
    assert [part.get_content() for part in got.iter_attachments()] == [bytes(range(256))]


def test_smtputf8_addresses_and_headers_arrive_as_text(recorder: SMTPServer) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jürgen@köln.example", "b@y", "Grüße"
    message.set_content("x\n")
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        client.send_message(message)
    mail = recorder.received[0]
    assert mail.mail_from == "jürgen@köln.example"
    assert "SMTPUTF8" in mail.mail_options
    assert mail.message["From"] == "jürgen@köln.example"


@pytest.mark.parametrize(
    "body", ["\r\n.\r\n..\r\n.dot\r\n", "x\r\n" * 100_000, "\r\n\r\n", "a" * 900], ids=str.__len__
)
def test_a_body_arrives_as_it_was_sent(recorder: SMTPServer, body: str) -> None:
    send(recorder, body)
    assert recorder.received[0].data == f"Subject: s\r\n\r\n{body}\r\n".encode()


def test_eight_bit_bytes_that_are_no_utf_8_arrive_as_they_are(recorder: SMTPServer) -> None:
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        client.sendmail("a@x", "b@y", b"\xff\xfe\r\n", mail_options=["BODY=8BITMIME"])
    assert recorder.received[0].data == b"\xff\xfe\r\n"


def test_mails_compare_by_value(recorder: SMTPServer) -> None:
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        for text in ("1", "1", "2"):
            client.sendmail("a@x", "b@y", text)
    first, same, other = recorder.received
    assert first == same != other
    assert len({first, same, other}) == 2


def test_at_most_keep_bytes_are_kept_and_dropped_records_are_counted() -> None:
    with SMTPServer(keep=3 * (510 + OVERHEAD)) as server:
        for number in range(10):
            send(server, f"{number}" * 285)  # 300 bytes with the header
        received = server.received
    assert [mail.data[14:15] for mail in received] == [b"7", b"8", b"9"]
    assert received.dropped == 7


# The protocol ----------------------------------------------------------------------------------


def test_what_is_offered(recorder: SMTPServer) -> None:
    with smtplib.SMTP(recorder.host, recorder.port, "me", LONG) as client:
        client.ehlo()
        assert {"size", "8bitmime", "smtputf8", "help"} <= set(client.esmtp_features)
        assert client.esmtp_features["size"] == "33554432"


def test_a_mail_that_is_too_large_is_refused_at_its_announcement_or_at_its_end() -> None:
    with SMTPServer(size_limit=1000) as server, Bare(server) as client:
        client.ask(b"EHLO me")
        assert client.ask(b"MAIL FROM:<a@x> SIZE=1001").startswith(b"552 ")
        for line in (*ENVELOPE[1:], b"DATA"):
            client.ask(line)
        assert client.ask(b"x" * 900, b"x" * 900, b".").startswith(b"552 ")
        begin_data(client)
        assert client.ask(b"small", b".").startswith(b"250 ")
        assert [mail.data for mail in server.received] == [b"small\r\n"]


@pytest.mark.parametrize("limit", [0, -1, 1 << 40])
def test_a_size_limit_that_cannot_be_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="size_limit"):
        SMTPServer(size_limit=limit)


def test_a_whole_session_at_once_is_served_in_order(recorder: SMTPServer) -> None:
    with Bare(recorder) as client:
        client.say(*ENVELOPE, b"DATA", b"1", b".", *ENVELOPE[1:], b"DATA", b"2", b".", b"QUIT")
        assert client.codes(10) == [250, 250, 250, 354, 250, 250, 250, 354, 250, 221]
    assert [mail.data for mail in recorder.received] == [b"1\r\n", b"2\r\n"]


def test_a_helo_client_is_served(recorder: SMTPServer) -> None:
    with Bare(recorder) as client:
        client.say(b"HELO old", *ENVELOPE[1:], b"DATA", b"x", b".")
        assert client.codes(5) == [250, 250, 250, 354, 250]
    assert recorder.received[0].helo == "old"


def test_rset_forgets_the_envelope(recorder: SMTPServer) -> None:
    with Bare(recorder) as client:
        client.say(*ENVELOPE, b"RSET", b"DATA", b"MAIL FROM:<c@x>", b"RCPT TO:<d@y>", b"DATA")
        assert client.codes(8) == [250, 250, 250, 250, 503, 250, 250, 354]
        assert client.ask(b".").startswith(b"250 ")
    assert [(m.mail_from, m.rcpt_tos) for m in recorder.received] == [("c@x", ["d@y"])]


@pytest.mark.parametrize(
    "line", [b"BOGUS", b"", b"\xff\xff", b"MAIL TO:<a@x>", b"EHLO", b"RCPT TO:<b@y>", b"x" * 9999]
)
def test_nonsense_is_answered_and_the_session_goes_on(recorder: SMTPServer, line: bytes) -> None:
    with Bare(recorder) as client:
        client.ask(b"EHLO me")
        assert client.ask(line)[:1] in b"45"
        client.ask(b"RSET")
        begin_data(client)
        assert client.ask(b"x", b".").startswith(b"250 ")


def test_a_client_that_leaves_while_its_handler_runs_is_no_error() -> None:
    running, go_on = threading.Event(), threading.Event()

    def handler(mail: Mail) -> None:
        running.set()
        go_on.wait(LONG)

    with SMTPServer(handler=handler) as server:
        with Bare(server) as client:
            begin_data(client)
            client.say(b"x", b".")
            assert running.wait(LONG)
        go_on.set()
        assert send(server) == {}
        assert [mail.data[:1] for mail in server.received] == [b"x", b"S"]


def test_a_client_that_leaves_in_the_middle_of_a_mail_has_sent_none(recorder: SMTPServer) -> None:
    with Bare(recorder) as client:
        begin_data(client)
        client.say(b"half a ma")
    assert send(recorder) == {}
    assert len(recorder.received) == 1


# Stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(), (b"EHLO me",), ENVELOPE], ids=["nothing", "EHLO", "RCPT"])
def test_an_idle_session_gets_421_and_does_not_delay_a_stop(said: tuple[bytes, ...]) -> None:
    server = SMTPServer().start()
    with Bare(server) as client:
        for line in said:
            client.ask(line)
        report = server.stop(LONG)
        assert client.reply() == b"421 4.3.2 the server is stopping"
        assert client.reply() == b""
    assert report.clean
    assert report.seconds < LONG / 2


def test_a_mail_in_progress_is_finished_through_a_stop() -> None:
    running, go_on = threading.Event(), threading.Event()

    def handler(mail: Mail) -> str:
        running.set()
        go_on.wait(LONG)
        return "250 finished"

    server = SMTPServer(handler=handler).start()
    with Bare(server) as client:
        begin_data(client)
        client.say(b"x", b".")
        assert running.wait(LONG)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        go_on.set()
        assert client.reply() == b"250 finished"
        assert client.reply()[:4] in (b"421 ", b"")
        stopper.join(LONG)
    assert server.stop_report.rung == "ask"


@pytest.mark.parametrize("body", [b"small", b"x" * 990], ids=["taken", "too large"])
def test_a_mail_half_sent_may_be_finished_through_a_stop(body: bytes) -> None:
    server = SMTPServer(size_limit=100).start()
    with Bare(server) as client, Bare(server) as idle:
        begin_data(client)
        stopper = threading.Thread(target=server.stop, args=(LONG,))
        stopper.start()
        assert idle.reply().startswith(b"421 ")  # so the stop has begun
        assert client.ask(body, b".")[:3] == (b"250" if body == b"small" else b"552")
        stopper.join(LONG / 2)
        assert not stopper.is_alive()
    assert len(server.received) == (1 if body == b"small" else 0)


def test_a_mail_that_never_ends_is_named_in_the_report() -> None:
    server = SMTPServer().start()
    with Bare(server) as client:
        begin_data(client)
        report = server.stop(1.0)
    assert [connection.state for connection in report.connections] == ["in DATA after 0 bytes"]


def test_a_session_sent_just_before_the_stop_is_not_lost() -> None:
    server = SMTPServer().start()
    with Bare(server) as client:
        begin_data(client)
        client.say(b"x", b".")
        server.stop()
        assert client.reply().startswith(b"250 ")
    assert len(server.received) == 1


@pytest.mark.parametrize("handled", [False, True])
def test_a_mail_that_is_no_single_message_is_refused(
    handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end in the child, with a smaller limit; the next mail is taken."""
    monkeypatch.setattr(frames, "MAX_MESSAGE", 1000)
    loop = asyncio.new_event_loop()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    iteration = Iteration(loop, Outbox(loop, nowhere))
    config: Any = SimpleNamespace(keep=1 << 20, handler_timeout=None, path=None)
    service = SMTPService(iteration, config, SMTPSettings())
    service.handled = handled
    session = SimpleNamespace(peer=("127.0.0.1", 1), host_name="x", extended_smtp=True)
    connection: Any = SimpleNamespace(
        peer=session.peer,
        number=1,
        call=0,
        session_now=lambda: session,
        envelope_now=lambda: envelope,
        stream=SimpleNamespace(get_extra_info=lambda name: None),
    )
    envelope = Envelope()
    envelope.mail_from = "me@x"
    envelope.rcpt_tos = [f"{'you' * 10}{number}@x" for number in range(100)]
    assert loop.run_until_complete(service.reply_to(connection, b"")).startswith("552 ")
    assert len(service.calls) == 0
    envelope.rcpt_tos = ["you@x"]
    if not handled:
        assert loop.run_until_complete(service.reply_to(connection, b"")) == "250 OK"
    loop.close()
    os.close(nowhere)
