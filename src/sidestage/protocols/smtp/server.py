"""The SMTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import shown
from ...server.names import closed
from ...server.securing import Secured
from ...server.server import KEEP
from ...server.settings import Setting
from ...wire.values import count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from ...layers.tls.tls import TLS
    from ...server.address import AddressLike
    from .mail import Mail

    Reply: TypeAlias = str | None
    Handler: TypeAlias = Callable[[Mail], Reply | Awaitable[Reply]]

SIZE_LIMIT = 33_554_432  # bytes; the default of aiosmtpd
RECIPIENT_LIMIT = 10_000  # RFC 5321 4.5.3.1.8: at least 100
# A mail is a single message to the test's process, with its recipients: the line of each has 512
# bytes at most. Together they stay below the largest frame (``wire.frames.MAX_FRAME``).
_MAX_SIZE_LIMIT = 1 << 27  # bytes
_MAX_RECIPIENT_LIMIT = 100_000


@closed
class SMTPServer(Secured["Mail"]):
    """An SMTP server with ESMTP, 8BITMIME, SIZE and SMTPUTF8.

    The handler gets a :class:`Mail` for each mail, and returns ``None`` (250) or a reply such as
    ``"550 no such user"``. ``size_limit`` (bytes, up to 128 MiB) is announced and enforced. After
    ``recipient_limit`` recipients (up to 100,000), each further one of a mail gets 452. ``tls``
    has it speak TLS from the first byte (SMTPS): ``True``, or a :class:`TLS`. The other
    arguments are those of every server.
    """

    protocol = "smtp"
    scheme = "smtp"
    secure_scheme = "smtps"

    size_limit = Setting(
        "Bytes of a mail; a larger one is refused with 552.",
        lambda name, value: count(name, value, least=1, most=_MAX_SIZE_LIMIT),
    )
    recipient_limit = Setting(
        "Recipients of a mail; each further one gets 452.",
        lambda name, value: count(name, value, least=1, most=_MAX_RECIPIENT_LIMIT),
    )

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        address: AddressLike = ("127.0.0.1", 0),
        handler: Handler | None = None,
        poll_interval: float = 0.5,
        *,
        size_limit: int = SIZE_LIMIT,
        recipient_limit: int = RECIPIENT_LIMIT,
        tls: bool | TLS | None = None,
        name: str | None = None,
        handler_timeout: float | None = 30.0,
        start_timeout: float = 10.0,
        stop_timeout: float = 5.0,
        keep: int = KEEP,
        fresh: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(
            address,
            handler,
            poll_interval,
            tls=tls,
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )
        SMTPServer.size_limit.begin(self, size_limit)
        SMTPServer.recipient_limit.begin(self, recipient_limit)

    @staticmethod
    def _matching(mail_from: str = "*", rcpt_to: str = "*") -> Callable[[Mail], bool]:
        for address in (mail_from, rcpt_to):
            if not isinstance(address, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f'an address is text, such as "me@here", not {shown(address)}')
        return lambda mail: (
            mail_from in ("*", mail.mail_from) and (rcpt_to == "*" or rcpt_to in mail.rcpt_tos)
        )

    if TYPE_CHECKING:

        @property
        def handler(self) -> Handler | None: ...
        @handler.setter
        def handler(self, handler: Handler | None) -> None: ...

    def _settings(self) -> dict[str, Any]:
        return {"size_limit": self.size_limit, "recipient_limit": self.recipient_limit}
