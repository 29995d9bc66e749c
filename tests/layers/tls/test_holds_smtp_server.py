"""What holds for SMTP servers holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(
    again(
        "protocols/smtp/test_server.py",
        {
            "test_a_mail_knows_its_envelope": "the mail says what was agreed by TLS",
            "test_a_mail_that_is_no_single_message_is_refused": "it has no server",
        },
    )
)
