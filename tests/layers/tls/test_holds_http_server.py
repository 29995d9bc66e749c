"""What holds for HTTP servers holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(
    again(
        "protocols/http/test_server.py",
        {
            "test_a_unix_socket": "its client is without TLS",
            "test_ipv6": "the URL says https",
        },
    )
)
