"""The SMTP server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...server.checks import count
from ...server.server import Server

if TYPE_CHECKING:
    from typing import Unpack

    from ...server.server import Options
    from .mail import Mail

SIZE_LIMIT = 33_554_432  # bytes; the default of aiosmtpd
_MAX_SIZE_LIMIT = 1 << 27  # bytes; a mail is a single message to the test's process


class SMTPServer(Server["Mail"]):
    """An SMTP server with ESMTP, 8BITMIME, SIZE and SMTPUTF8.

    The handler gets a :class:`Mail` for each mail, and returns ``None`` (250) or a reply such as
    ``"550 no such user"``. ``size_limit`` (bytes, up to 128 MiB) is announced and enforced. The
    other arguments are those of every server.
    """

    protocol = "smtp"
    scheme = "smtp"

    def __init__(
        self,
        address: Any = ("127.0.0.1", 0),
        handler: Callable[[Mail], Any] | None = None,
        poll_interval: float = 0.5,
        *,
        size_limit: int = SIZE_LIMIT,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(address, handler, poll_interval, **options)
        self._size_limit = count("size_limit", size_limit)
        if not 0 < size_limit <= _MAX_SIZE_LIMIT:
            raise ValueError(f"size_limit must be from 1 to {_MAX_SIZE_LIMIT}, not {size_limit}")

    def _settings(self) -> dict[str, Any]:
        return {"size_limit": self._size_limit}
