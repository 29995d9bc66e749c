"""What SMTP servers refuse, and what they tell the client and the test about it."""

from __future__ import annotations

import http.client
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from email.message import EmailMessage

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kit.runs import pid_of
from kit.scripts import eventually
from kit.smtp import ENVELOPE, LONG, Bare, begin_data
from sidestage import SMTPServer
from sidestage.journal.journal import OVERHEAD
from sidestage.protocols.smtp.messages import MailIn
from sidestage.wire.frames import FrameBuffer, encode

MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[SMTPServer]:
    with SMTPServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[SMTPServer]:
    with SMTPServer() as server:
        yield server


def texts(server: SMTPServer) -> list[str]:
    return [diagnostic.text for diagnostic in server.diagnostics]


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, reply",
    [
        (b"RCPT TO:<", b"501 5.5.4 '<' is no address in brackets (RFC 5321 4.1.2)"),
        (b"RCPT TO:<a@[>", b"553 5.1.3 'a@[' is no address (RFC 5321 4.1.2)"),
        (b"DATA", b"503 5.5.1 DATA before a RCPT that was accepted (RFC 5321 3.3)"),
        (b"BOGUS x", b"500 5.5.1 'BOGUS' is no command (RFC 5321 4.2.4)"),
        (b"x" * 9999, b"500 5.5.2 Line too long: at most 512 bytes (RFC 5321 4.5.3.1.4)"),
        (b"RCPT TO:<b@y> NOTIFY=NEVER", b"555 5.5.4 the parameter NOTIFY is not known"),
    ],
)
def test_a_refused_command_is_told_to_both(server: SMTPServer, line: bytes, reply: bytes) -> None:
    with Bare(server) as client:
        client.say(*ENVELOPE[:2])
        client.codes(2)
        assert client.ask(line).startswith(reply)
        (text,) = texts(server)
        assert text.startswith(f"sent {reply.decode()}")
        assert text.endswith(repr(line.decode()) if len(line) < 80 else "...")
        client.say(b"RCPT TO:<b@y>", b"DATA", b"x", b".", b"QUIT")
        assert client.codes(4) == [250, 354, 250, 221]


@given(st.sampled_from(["MAIL FROM:", "RCPT TO:"]), st.text(max_size=60), st.booleans())
@example("RCPT TO:", "<", False)
@example("RCPT TO:", "<a@[", False)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_argument_is_taken_or_refused_for_good(
    shared: SMTPServer, command: str, argument: str, utf8: bool
) -> None:
    argument = argument.replace("\n", "")
    with Bare(shared) as client:
        client.ask(b"EHLO me")
        if command == "RCPT TO:":
            client.ask(b"MAIL FROM:<> SMTPUTF8" if utf8 else b"MAIL FROM:<>")
        reply = client.ask(f"{command}{argument}".encode())
        assert reply[:3] in {b"250", b"501", b"552", b"553", b"555"}
        assert client.ask(b"NOOP") == b"250 OK"


@pytest.mark.parametrize(
    "sent", ['"a b"@x', '"a"@x', "A.B@X", "a@[IPv6:::1]", "jürgen@köln.example"]
)
def test_addresses_arrive_as_they_were_sent(server: SMTPServer, sent: str) -> None:
    with Bare(server) as client:
        client.say(
            b"EHLO me", f"MAIL FROM:<{sent}> SMTPUTF8".encode(), f"RCPT TO:<{sent}>".encode()
        )
        client.say(b"DATA", b"x", b".")
        assert client.codes(5) == [250, 250, 250, 354, 250]
    (mail,) = server.received
    assert (mail.mail_from, mail.rcpt_tos, mail.mail_options) == (sent, [sent], ["SMTPUTF8"])


def test_a_source_route_and_missing_brackets_are_no_matter(server: SMTPServer) -> None:
    with Bare(server) as client:
        client.say(b"helo me", b"mail from: a@x", b"rcpt to:<@relay.example,@two:b@y>  ", b"data ")
        client.say(b"x", b".")
        assert client.codes(5) == [250, 250, 250, 354, 250]
    (mail,) = server.received
    assert (mail.mail_from, mail.rcpt_tos, mail.helo) == ("a@x", ["b@y"], "me")
    assert texts(server) == []


def test_the_other_commands_get_the_replies_of_the_rfc(server: SMTPServer) -> None:
    with Bare(server) as client:
        for line, code in {
            b"NOOP": b"250", b"noop with a word": b"250", b"RSET ": b"250",
            b"VRFY me": b"252", b"HELP": b"214", b"help mail": b"214",
            b"VRFY": b"501", b"EHLO": b"501", b"EXPN list": b"502", b"AUTH LOGIN": b"502",
            b"STARTTLS": b"502", b"HELP me": b"504",
        }.items():  # fmt: skip
            assert client.ask(line)[:3] == code
        client.say(*ENVELOPE[:2], ENVELOPE[1])
        assert client.codes(3) == [250, 250, 503]


def test_a_client_that_says_nothing_but_nonsense_is_sent_away(server: SMTPServer) -> None:
    with Bare(server) as client:
        client.say(*[b"nonsense"] * 1000)
        replies = client.rest()
        assert replies[:-1] == [b"500 5.5.1 'nonsense' is no command (RFC 5321 4.2.4)"] * 20
        assert replies[-1] == b"421 4.7.0 too many commands were refused"
    assert len(texts(server)) == 21
    assert "20 without a mail between them" in texts(server)[-1]


def test_a_mail_makes_up_for_what_was_refused_before(server: SMTPServer) -> None:
    with Bare(server) as client:
        client.ask(b"EHLO me")
        for _ in range(3):
            assert [client.ask(b"nonsense")[:3] for _ in range(15)] == [b"500"] * 15
            client.say(*ENVELOPE[1:], b"DATA", b"x", b".")
            assert client.codes(4) == [250, 250, 354, 250]


def test_commands_that_end_with_lf_are_taken_and_told_once(server: SMTPServer) -> None:
    with Bare(server) as client:
        client.sock.sendall(b"EHLO me\nMAIL FROM:<a@x>\nRCPT TO:<b@y>\n")
        assert client.codes(3) == [250] * 3
        assert texts(server) == ["'EHLO me\\n' ends with LF, not CRLF (RFC 5321 2.3.8)"]
        client.sock.sendall(b"DATA\nSubject: x\n\ntext\n.\n")
        assert client.rest()[-1].startswith(b"554 5.6.0 a bare LF")


# Other protocols -------------------------------------------------------------------------------


def test_a_tls_client_is_named_with_the_cure(server: SMTPServer) -> None:
    context = ssl.create_default_context()
    with pytest.raises(OSError), socket.create_connection((server.host, server.port), LONG) as sock:  # noqa: PT011 - of ssl or of the socket
        context.wrap_socket(sock, server_hostname="localhost")
    assert eventually(lambda: server.diagnostics)
    (text,) = texts(server)
    assert "this is a TLS handshake, the server speaks plain SMTP: connect without TLS" in text


def test_an_http_client_is_named(server: SMTPServer) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=LONG)
    with pytest.raises(http.client.BadStatusLine, match="220 localhost"):
        connection.request("GET", "/")
        connection.getresponse()
    connection.close()
    assert eventually(lambda: server.diagnostics)
    (text,) = texts(server)
    assert text == ("sent 554 5.5.1 this is HTTP, the server speaks SMTP: 'GET / HTTP/1.1'")


# The content -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [2, 2000], ids=["short", "long"])
def test_smtplib_with_lf_in_bytes_is_told_what_is_wrong(server: SMTPServer, lines: int) -> None:
    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("a line\n" * lines)
    with smtplib.SMTP(server.host, server.port, "me", LONG) as client:
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("a@x", "b@y", message.as_bytes())
        assert caught.value.smtp_code == 554
        assert client.sendmail("a@x", "b@y", message.as_string()) == {}  # the session goes on
    (text,) = texts(server)
    assert "a bare LF after 'Subject: hello' in line 1: end lines with CRLF" in text
    assert text.endswith("the mail from 'a@x'")
    assert len(server.received) == 1


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n"])
def test_a_false_end_smuggles_nothing_and_is_answered_at_once(
    server: SMTPServer, end: bytes
) -> None:
    with Bare(server) as client:
        begin_data(client)
        client.sock.sendall(
            b"x" + end + b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@y>\r\nDATA\r\ny\r\n.\r\n"
        )
        (reply,) = client.rest()
        assert reply.startswith(b"554 5.6.0 a bare ")
    assert server.received == []
    (text,) = texts(server)
    assert text.startswith("sent 554 5.6.0 a bare ")


def test_the_reply_to_a_false_end_survives_what_the_client_still_sends(server: SMTPServer) -> None:
    with Bare(server) as client:
        begin_data(client)
        client.sock.sendall(b"x\n.\n" + b"y" * 4 * MIB)
        (reply,) = client.rest()
        assert reply.startswith(b"554 5.6.0 a bare LF")


def test_a_long_line_of_a_mail_is_named(server: SMTPServer) -> None:
    with Bare(server) as client:
        begin_data(client)
        reply = client.ask(b"one", b"x" * 999, b".")
        assert reply == (
            b"500 5.6.0 Line too long: line 2 has 999 bytes, at most 998 (RFC 5321 4.5.3.1.6)"
        )
        assert texts(server) == [f"sent {reply.decode()}: the mail from 'a@x'"]
        begin_data(client)
        assert client.ask(b"x" * 998, b"." + b"." * 998, b".").startswith(b"250 ")


def test_other_bytes_arrive_as_they_are(server: SMTPServer) -> None:
    every = bytes(range(256)).translate(None, b"\r\n")
    with Bare(server) as client:
        begin_data(client)
        assert client.ask(every, b".") == b"250 OK"
    assert server.received[0].data == every + b"\r\n"


# Limits ----------------------------------------------------------------------------------------


def test_recipients_above_the_limit_get_452_and_the_others_their_mail() -> None:
    with SMTPServer(recipient_limit=3) as server, Bare(server) as client:
        client.say(*ENVELOPE[:2], *[b"RCPT TO:<%d@y>" % number for number in range(50)], b"DATA")
        client.say(b"x", b".")
        assert client.codes(54) == [250, 250, *[250] * 3, *[452] * 47, 354, 250]
        assert server.received[0].rcpt_tos == ["0@y", "1@y", "2@y"]
        assert texts(server) == [
            "sent 452 4.5.3 Too many recipients: at most 3: '3@y', and what follows it"
        ]
        client.say(*ENVELOPE[1:], b"DATA", b"x", b".")  # the next mail starts anew
        assert client.codes(4) == [250, 250, 354, 250]


def test_smtplib_is_told_which_recipients_are_too_many() -> None:
    with SMTPServer(recipient_limit=2) as server:
        with smtplib.SMTP(server.host, server.port, "me", LONG) as client:
            refused = client.sendmail("a@x", ["b@y", "c@y", "d@y"], "text")
        assert list(refused) == ["d@y"]
        assert refused["d@y"][0] == 452
        assert server.received[0].rcpt_tos == ["b@y", "c@y"]


@pytest.mark.parametrize("limit", [0, -1, 100_001])
def test_a_recipient_limit_that_cannot_be_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="recipient_limit must be"):
        SMTPServer(recipient_limit=limit)


def test_one_mail_with_very_many_recipients_does_not_end_the_server(server: SMTPServer) -> None:
    padding, count = b"r" * 480, 25_000
    with Bare(server) as client:
        client.say(*ENVELOPE[:2])
        client.codes(2)
        codes: list[int] = []
        for start in range(0, count, 1000):
            client.say(*[b"RCPT TO:<%b-%d@y>" % (padding, start + n) for n in range(1000)])
            codes += client.codes(1000)
        assert codes == [250] * 10_000 + [452] * 15_000
        client.say(b"DATA", b"x", b".")
        assert client.codes(2) == [354, 250]
    (mail,) = server.received
    assert len(mail.rcpt_tos) == 10_000
    assert len(texts(server)) == 1


def test_the_largest_mail_with_the_most_recipients_is_a_message_that_passes() -> None:
    most = MailIn(
        call=1, peer=("::1", 65535, 0, 0), at=1.0, connection=1, helo="h" * 512, esmtp=True,
        mail_from="a" * 512, mail_options=["SIZE=1" * 50], rcpt_tos=["r" * 512] * 100_000,
        rcpt_options=[], data=bytes(128 * MIB),
    )  # fmt: skip
    SMTPServer(size_limit=128 * MIB, recipient_limit=100_000)
    buffer = FrameBuffer([MailIn])
    assert buffer.feed(bytes(encode(most))) == [most]


def test_recipients_count_for_keep() -> None:
    with SMTPServer(keep=2 * OVERHEAD + 3000) as server:
        for number in range(3):
            with smtplib.SMTP(server.host, server.port, "me", LONG) as client:
                client.sendmail("a@x", [f"{number}-{n:04}@y" for n in range(200)], "text")
        assert [mail.rcpt_tos[0][0] for mail in server.received] == ["2"]
        assert server.received.dropped == 2


def test_a_mail_above_the_limit_is_read_and_not_kept() -> None:
    with SMTPServer(size_limit=MIB) as server, Bare(server) as client:
        process = psutil.Process(pid_of(server))
        begin_data(client)
        before = process.memory_info().rss
        lines = [b"x" * 998] * 1000
        for _ in range(100):
            client.say(*lines)
        assert process.memory_info().rss - before < 16 * MIB
        assert client.ask(b".").startswith(b"552 5.3.4 ")
        assert texts(server) == [
            "sent 552 5.3.4 Too much mail data: at most 1048576 bytes: the mail from 'a@x'"
        ]


def test_many_large_mails_at_once_are_bounded_together() -> None:
    """Those that are too many get 452, and the others arrive."""
    with SMTPServer(size_limit=8 * MIB, keep=16 * MIB) as server, ExitStack() as stack:
        process = psutil.Process(pid_of(server))
        clients = [stack.enter_context(Bare(server)) for _ in range(12)]
        before = process.memory_info().rss
        for client in clients:
            begin_data(client)
            for _ in range(7):
                client.say(*[b"x" * 998] * 1000)
            assert process.memory_info().rss - before < 40 * MIB
        replies = [client.ask(b".")[:9] for client in clients]
        assert set(replies) == {b"250 OK", b"452 4.3.1"}
        assert process.memory_info().rss - before < 40 * MIB
        received = server.received
        assert len(received) + received.dropped == replies.count(b"250 OK")
        with smtplib.SMTP(server.host, server.port, "me", LONG) as other:
            assert other.sendmail("a@x", "b@y", "text") == {}


# Handlers' replies -----------------------------------------------------------------------------


def test_a_reply_has_a_limit() -> None:
    server = SMTPServer(handler=lambda mail: "250 " + "x" * (300 * MIB)).start()
    with Bare(server) as client:
        begin_data(client)
        reply = client.ask(b"x", b".")
        assert reply.startswith(b"451 4.3.0 the handler raised ValueError: ")
        assert b"): a reply of 3" in reply
    with pytest.raises(ValueError, match="at most 65,536"):
        server.stop()


def test_what_a_handler_refuses_is_no_diagnostic() -> None:
    with SMTPServer(handler=lambda mail: "550 no such user") as server:
        with pytest.raises(smtplib.SMTPDataError), smtplib.SMTP(server.host, server.port) as client:
            client.sendmail("a@x", "b@y", "text")
        assert texts(server) == []
