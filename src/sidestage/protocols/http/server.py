"""The HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ...errors import shown
from ...pristine.imports import importing_once
from ...server.names import closed
from ...server.server import KEEP
from ...server.settings import Setting
from ...wire.values import count
from .expecting import Expecting

if TYPE_CHECKING:
    from ...layers.tls.tls import TLS
    from ...server.address import AddressLike
    from .request import HTTPRequest

HEAD_LIMIT = 65536  # bytes; larger heads are refused with 431
_MAX_HEAD_LIMIT = 1 << 26  # bytes; a head is in a single message to the test's process


def _checked_unexpected(name: str, value: Any) -> Literal["fail", "reply"]:
    """Return what an unexpected request does; raises ValueError."""
    if value == "fail":
        return "fail"
    if value == "reply":
        return "reply"
    raise ValueError(f'{name} is "fail" or "reply", not {shown(value)}')


@closed
class HTTPServer(Expecting):
    """An HTTP/1.1 server.

    The handler gets an :class:`HTTPRequest` and returns the response: ``str``, ``bytes``, a
    ``dict`` or ``list`` (JSON), an ``int`` (status), ``(body, status[, headers])``, an iterator
    of bytes (sent chunk by chunk), an :class:`HTTPResponse`, or ``None`` (200, or what it wrote
    by hand). A request head larger than ``head_limit`` bytes (up to 64 MiB) is refused with 431.
    After ``handler_timeout`` seconds the client gets a 504. What no expectation takes fails the
    test, unless ``unexpected`` is ``"reply"``: then its client gets a 404, and that is all.
    ``tls`` has it speak HTTPS: ``True``, or a :class:`TLS`. The other arguments are those
    of every server.
    """

    protocol = "http"
    scheme = "http"
    secure_scheme = "https"
    _alpn = ("http/1.1",)

    head_limit = Setting(
        "Bytes of a request's head; a larger one is refused with 431.",
        lambda name, value: count(name, value, least=1, most=_MAX_HEAD_LIMIT),
    )
    unexpected = Setting(
        'What an unexpected request does beside its 404: ``"fail"`` the test, or only ``"reply"``.',
        _checked_unexpected,
        live=True,
        follow=True,
    )

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        address: AddressLike = ("127.0.0.1", 0),
        handler: Callable[[HTTPRequest], Any] | None = None,
        poll_interval: float = 0.5,
        *,
        head_limit: int = HEAD_LIMIT,
        unexpected: Literal["fail", "reply"] = "fail",
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
        HTTPServer.head_limit.begin(self, head_limit)
        self.__dict__["unexpected"] = _checked_unexpected("unexpected", unexpected)

    @staticmethod
    def _matching(
        method: str | tuple[str, ...] = "*", path: str = "*"
    ) -> Callable[[HTTPRequest], bool]:
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'a path is text, such as "/items", and not {shown(path)}')
        methods: Any = (method,) if isinstance(method, str) else method
        several = isinstance(methods, (tuple, list, set, frozenset)) and methods
        if not several or not all(isinstance(name, str) for name in methods):
            raise TypeError(f'a method is text, such as "GET", or a tuple, not {shown(method)}')
        if any("/" in name for name in methods):
            raise ValueError(
                f'{shown(method)} is no method: the method goes first, as in "GET", "/items"'
            )
        with importing_once():
            from .fields import check_case
        for name in methods:
            check_case(name)
        if "?" in path or not (path.startswith("/") or path == "*" or "CONNECT" in methods):
            raise ValueError(
                f'a path is "/items", without a query or a host, and not {shown(path)}; '
                "wait_for takes a function for the rest"
            )
        any_method = "*" in methods
        return lambda request: (
            (any_method or request.method in methods) and path in ("*", request.path)
        )

    @property
    def server_port(self) -> int:
        """The bound port, under its name in ``http.server``."""
        return self.port

    def _unexpected_fails(self) -> bool:
        return self.unexpected == "fail"

    def _change(self) -> None:
        table: Any = self._slot.declared
        if table is not None:
            table.fails = self._unexpected_fails()
        super()._change()

    def _settings(self) -> dict[str, Any]:
        return {"head_limit": self.head_limit}
