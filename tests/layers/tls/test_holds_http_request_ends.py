"""What holds for how handlers end requests holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(
    again(
        "protocols/http/test_request_ends.py",
        {
            "test_in_place_of_a_response": "the report says that the request came by TLS",
            "test_over_a_unix_socket_a_reset_is_an_end": "its client is without TLS",
        },
    )
)
