"""Servers that can speak TLS: the option ``tls``, and what a client needs to trust one.

Nothing of TLS is imported before a server is to speak it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import StateError
from ..journal.frames import trimmed
from ..pristine.imports import importing_once
from . import address as addresses
from .server import KEEP, R, Server
from .settings import Setting

if TYPE_CHECKING:
    import ssl

    from ..backends.base import Layer
    from ..journal.facts import Diagnostic
    from ..layers.tls.tls import TLS

# What clients read the certificates that they trust from: OpenSSL and httpx, requests, curl, Node.
_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def _checked_tls(name: str, value: Any) -> TLS | None:
    """Return how a server speaks TLS; raises TypeError."""
    if value is None or value is False:
        return None
    with importing_once():
        from ..layers.tls.tls import tls_or_none
    return tls_or_none(name, value)


class _TLSSetting(Setting["TLS | None"]):
    """The scheme of a server's URL follows it."""

    def begin(self, server: Any, value: Any) -> None:
        super().begin(server, value)
        if server.tls is not None:
            self._note_scheme(server)

    def __set__(self, server: Any, value: bool | TLS | None) -> None:
        super().__set__(server, _checked_tls(self._name, value))
        self._note_scheme(server)

    def _note_scheme(self, server: Any) -> None:
        kind: type[Secured[Any]] = type(server)
        server.__dict__["scheme"] = kind.scheme if server.tls is None else kind.secure_scheme


class Secured(Server[R]):
    """A server of streams, which can speak TLS."""

    secure_scheme: ClassVar[str]  # of its URL, with TLS
    _alpn: ClassVar[tuple[str, ...]] = ()  # the protocols to choose from, where TLS says none

    tls = _TLSSetting("How it speaks TLS: ``True``, or a ``TLS``; ``None`` without.", _checked_tls)

    # Over thirty lines: every option, a line each.
    def __init__(
        self,
        address: addresses.AddressLike = ("127.0.0.1", 0),
        handler: Callable[..., Any] | None = None,
        poll_interval: float = 0.5,
        *,
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
            name=name,
            handler_timeout=handler_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            keep=keep,
            fresh=fresh,
            backlog=backlog,
        )
        Secured.tls.begin(self, tls)

    def _stack(self) -> tuple[Layer, ...]:
        if self.tls is None:
            return ()
        with importing_once():
            from ..layers.tls.tls import Terminated
        host = addresses.client_host(self._listen.host or "")
        return (Terminated(self.tls, host, self._alpn),)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What clients did that the protocol does not allow, and what was given up on."""
        if self.tls is not None:  # a client that refuses a certificate gets no answer to wait for
            self._sync()
        return super().diagnostics

    # What a client needs -----------------------------------------------------------------------

    @property
    @trimmed
    def ca_file(self) -> str:
        """The path of a file, in PEM, with the certificates that clients of this server trust.

        Only this user may read it. It is removed at the end of this process, unless that shares
        its authority by ``SIDESTAGE_CA``. Raises StateError without TLS, ImportError without the
        extra ``tls``, and OSError if it cannot be written.
        """
        return self._speaks_tls("ca_file").trusted_file()

    @trimmed
    def client_context(self) -> ssl.SSLContext:
        """A new context for a client that trusts this server, and nobody else.

        It has no certificate of a client: ``load_cert_chain`` takes ``tls.client_certificate``.
        Raises StateError without TLS, ImportError without the extra ``tls``.
        """
        tls = self._speaks_tls("client_context()")
        with importing_once():
            from ..layers.tls.trust import context
        return context(tls.trusted())

    @trimmed
    def client_env(self) -> dict[str, str]:
        """Environment variables that have a client in another process trust this server.

        They name ``ca_file`` for OpenSSL and Python, requests, curl and Node. Raises as that does.
        """
        return dict.fromkeys(_VARIABLES, self._speaks_tls("client_env()").trusted_file())

    def _speaks_tls(self, what: str) -> TLS:
        if self.tls is None:
            how = f"make it by {type(self).__name__}(tls=True)"
            if self.name == f"{self.protocol}_server":  # a fixture of the plugin
                how = f'mark the test @pytest.mark.sidestage({self.name}={{"tls": True}})'
            raise StateError(
                f"{what} is for clients of a server with TLS, and {self.describe()} speaks none: "
                f"{how}"
            )
        return self.tls
