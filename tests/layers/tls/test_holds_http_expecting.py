"""What holds for expectations holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(again("protocols/http/test_expecting.py"))

# Its client speaks HTTPS by itself.
del globals()["TestReplies"].test_a_text_is_sent_in_the_charset_that_is_declared
