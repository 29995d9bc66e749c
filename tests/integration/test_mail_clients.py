"""Popular mail clients with a real server."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import subprocess
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest

from sidestage import Mail, SMTPServer

WAIT = 30.0  # seconds; no test comes near it

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def message(subject: str = "hello") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "me@example.org", "you@example.org", subject
    mail.set_content("a line\n.\n.. and dots\n")
    return mail


def curl(server: SMTPServer, mail: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sSv", "--noproxy", "*", "--max-time", "20", "--upload-file", "-"]
    envelope = ["--mail-from", "me@example.org", "--mail-rcpt", "you@example.org"]
    return subprocess.run(
        [*command, *envelope, *arguments, server.url],
        input=mail, capture_output=True, check=False,
    )  # fmt: skip


@needs_curl
@pytest.mark.parametrize("handler", [None, lambda mail: None], ids=["no handler", "a handler"])
def test_curl_sends_a_mail(handler: Any) -> None:
    with SMTPServer(handler=handler) as server:
        done = curl(server, message().as_bytes(policy=message().policy.clone(linesep="\r\n")))
        assert done.returncode == 0, done.stderr.decode()
        (mail,) = server.received
        assert (mail.mail_from, mail.rcpt_tos) == ("me@example.org", ["you@example.org"])
        assert mail.message.get_content() == message().get_content()
        assert not server.diagnostics


@needs_curl
def test_curl_is_told_of_a_bare_lf() -> None:
    """It sends a file as it is, unless it has ``--crlf``."""
    with SMTPServer() as server:
        done = curl(server, message().as_bytes())
        assert done.returncode
        assert b"554 5.6.0 a bare LF" in done.stderr
        assert not server.received
        done = curl(server, message().as_bytes(), "--crlf")
        assert done.returncode == 0, done.stderr.decode()
        assert len(server.received) == 1


@needs_curl
@pytest.mark.parametrize("command", ["VRFY", "NOOP", "HELP"])
def test_curl_sends_commands(command: str) -> None:
    with SMTPServer() as server:
        arguments = ["curl", "-sS", "--max-time", "20", "--request", command, server.url]
        if command == "VRFY":
            arguments += ["--mail-rcpt", "you@example.org"]
        subprocess.run(arguments, check=True, capture_output=True)
        assert not [d.text for d in server.diagnostics if "sent" in d.text]


def test_smtplib_talks_long() -> None:
    with SMTPServer(handler=lambda mail: "250 filed") as server:
        with smtplib.SMTP(server.host, server.port, "me", WAIT) as client:
            assert client.ehlo()[0] == 250
            assert client.help().startswith(b"Commands: ")
            assert client.verify("you")[0] == 252
            assert client.expn("list")[0] == 502
            assert client.noop()[0] == 250
            for number in range(3):
                assert client.send_message(message(str(number))) == {}
                assert client.rset()[0] == 250
        assert [mail.message["Subject"] for mail in server.received] == ["0", "1", "2"]
        assert [d.text for d in server.diagnostics] == [
            "sent 502 5.5.1 EXPN is not offered (RFC 5321 4.2.4): 'expn list'"
        ]


def test_smtplib_hears_of_addresses_that_are_none() -> None:
    with (
        SMTPServer() as server,
        smtplib.SMTP(server.host, server.port, "me", WAIT) as client,
    ):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            client.sendmail("me@x", ["you@", "a b@x"], "text")
        assert {code for code, _ in caught.value.recipients.values()} == {553}
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"no address"):
            client.sendmail("me@x..y", ["you@x"], "text")
        assert client.sendmail("me@x", ["you@x", "you@"], "text").keys() == {"you@"}


def test_aiosmtplib() -> None:
    def handler(mail: Mail) -> str | None:
        return "550 no such user" if "nobody@x" in mail.rcpt_tos else None

    async def send(server: SMTPServer) -> None:
        async with aiosmtplib.SMTP(hostname=server.host, port=server.port) as client:
            await asyncio.wait_for(client.send_message(message()), WAIT)
            with pytest.raises(aiosmtplib.SMTPDataError, match="no such user"):
                await client.sendmail("me@x", ["nobody@x"], b"bytes with\nLF\n")
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
                await client.sendmail("me@x", ["you@"], b"text")
            await client.sendmail("jürgen@köln.example", ["ü@x"], "x", mail_options=["SMTPUTF8"])

    with SMTPServer(handler=handler) as server:
        asyncio.run(send(server))
        assert [mail.mail_from for mail in server.received] == [
            "me@example.org", "me@x", "jürgen@köln.example",
        ]  # fmt: skip
