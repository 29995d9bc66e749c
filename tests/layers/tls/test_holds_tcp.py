"""What holds for TCP servers holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(
    again(
        "protocols/tcp/test_server.py",
        {
            "test_a_handler_can_stop_its_own_server": "what is cut off has no close_notify",
            "test_an_option_reaches_the_real_socket": "it has close_notify before the reset",
        },
    )
)
