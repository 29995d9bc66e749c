"""A mail in a report: its envelope, its subject, and how it begins."""

from __future__ import annotations

import pytest

from sidestage.protocols.smtp.mail import Mail
from sidestage.protocols.smtp.messages import MailIn
from sidestage.protocols.smtp.shown import shown


def mail(data: bytes, *recipients: str, sender: str = "me@x") -> Mail:
    return Mail(
        MailIn(
            call=0,
            peer="",
            at=1.0,
            connection=1,
            helo="me",
            esmtp=True,
            mail_from=sender,
            mail_options=[],
            rcpt_tos=list(recipients),
            rcpt_options=[],
            data=data,
        )
    )


@pytest.mark.parametrize(
    "data, details",
    [
        (b"", ()),
        (b"no head", ()),
        (b"From: me\r\nsubject: tea\r\n\r\nhot", ("Subject: tea", "body: 3 bytes 'hot'")),
        (b"X-Subject: no\r\n\r\nSubject: no", ("body: 11 bytes 'Subject: no'",)),
        (b"Subject: \x1b[2J\xff\r\n\r\n", ("Subject: \\x1b[2J\ufffd",)),
        (b"Subject: a\r\n\r\n" + b"x" * 100, ("Subject: a", f"body: 100 bytes '{'x' * 80}'...")),
    ],
)
def test_the_subject_and_the_beginning(data: bytes, details: tuple[str, ...]) -> None:
    assert shown(mail(data, "you@x")).details == details


def test_the_envelope_names_some_recipients() -> None:
    assert shown(mail(b"x", "a@x", sender="")).line == "mail from '' to 'a@x', 1 byte"
    told = shown(mail(b"x", *(f"{number}@x" for number in range(5000))))
    assert told.line == "mail from 'me@x' to '0@x', '1@x', '2@x' and 4,997 more, 1 byte"
