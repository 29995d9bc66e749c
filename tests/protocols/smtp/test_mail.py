"""A mail as handlers get it: what Python's ``email`` makes of it, and its repr."""

from __future__ import annotations

import pytest

from sidestage.protocols.smtp.mail import Mail
from sidestage.protocols.smtp.messages import MailIn


def mail(data: bytes, *recipients: str) -> Mail:
    return Mail(
        MailIn(
            call=0,
            peer="",
            at=1.0,
            connection=1,
            helo="me",
            esmtp=True,
            mail_from="me@x",
            mail_options=[],
            rcpt_tos=list(recipients),
            rcpt_options=[],
            data=data,
        )
    )


NESTED = b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(2000)
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(NESTED, id="nested multiparts"),
        pytest.param(b"Content-Type: a/b; x*\r\n\r\n", id="a parameter without a value"),
        pytest.param(b"Content-Type: x/y; a*=undefined''%ff\r\n\r\n", id="no charset"),
        pytest.param(b"Content-Type: a/b; a*0*=a\0b''x\r\n\r\n", id="NUL in a charset"),
    ],
)
def test_what_email_cannot_parse_is_a_value_error(data: bytes) -> None:
    """Python's parser raises IndexError, RecursionError and others for some header fields."""
    broken = mail(data, "you@x")
    with pytest.raises(ValueError, match=r"^the mail cannot be parsed \(\w+: .*\); `data` has"):
        _ = broken.message
    assert broken.data == data


def test_a_repr_needs_no_readable_subject() -> None:
    """A repr is made for messages about errors, so it never raises one."""
    broken = mail(b"Subject: =?raw_unicode_escape?q?\\ud800?=\r\n\r\n", "you@x")
    assert repr(broken) == "<Mail from 'me@x' to ['you@x']: no subject>"


def test_a_repr_is_short() -> None:
    """Many recipients are counted, and a long subject is cut."""
    long = mail(b"Subject: " + b"x" * 900 + b"\r\n\r\n", *["you@x"] * 4000)
    assert "and 3,990 more" in repr(long)
    assert len(repr(long)) < 500
