"""What holds for faults holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(
    again(
        "protocols/http/test_faults_served.py",
        {
            "test_over_a_unix_socket_a_reset_is_an_end": "its client is without TLS",
            "test_layers_see_what_is_sent_before_a_fault": "its server is without TLS",
            "test_a_stalled_client_waits_until_the_server_stops": "it has no close_notify",
            "test_a_handler_that_returns_it_while_the_server_stops": "it may have none",
            "test_a_stop_cuts_a_slow_answer_off": "it has no close_notify",
        },
    )
)
