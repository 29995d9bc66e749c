"""What holds for clients that leave holds over TLS: their tests, again."""

from __future__ import annotations

import pytest

from kit.secured import again, secure_clients

pytestmark = pytest.mark.usefixtures(secure_clients.__name__)
globals().update(again("protocols/http/test_departure.py"))
