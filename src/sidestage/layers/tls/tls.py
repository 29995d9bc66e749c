"""How a server speaks TLS, as its user says it: a value that does nothing before a server starts.

Importing it is cheap. What makes certificates is imported with the first that is made.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from ...errors import brief
from ...journal.frames import trimmed
from ...pristine import system
from ...pristine.imports import importing_once
from . import options as check
from .options import Pair

if TYPE_CHECKING:
    import ssl

    from .authority import Authority
    from .making import Issued
    from .messages import Certificate, CertificateWanted, Settings
    from .options import PEM

    class Options(TypedDict, total=False):
        """What all kinds of TLS take."""

        hosts: str | Iterable[str] | None
        ca: PEM | None
        client_auth: Literal["optional", "required"] | None
        alpn: str | Iterable[str] | None
        minimum_version: str | ssl.TLSVersion | None
        ciphers: str | None
        clock: Callable[[], float] | None


LOCAL = ("localhost", "127.0.0.1", "::1")
WRONG_HOST = "wrong-host.invalid"  # a name that nobody has: RFC 2606 2
_ANY_HOST = ("*",)
_HANDSHAKES = frozenset({"fails", "stalls", "cut"})
_MOST_TOLD = 500  # characters of why there is no certificate
_OWN = "a certificate of your own"


class TLS:
    """How a server speaks TLS: ``HTTPServer(tls=TLS(client_auth="required"))``.

    Without arguments it is what ``tls=True`` is: a certificate for ``localhost``, ``127.0.0.1``,
    ``::1`` and the host that the server listens on, which an authority of this process has signed.
    ``hosts`` are the names in the certificate instead; ``"*"`` makes one for each name that a
    client asks for. ``cert`` and ``key`` are a certificate of your own, each the path of a PEM
    file or its bytes. ``ca`` is the authority in place of Sidestage's: with its key in the same
    PEM it signs, without it, it is whom clients of ``cert`` trust, and who has signed the
    certificates of clients. ``client_auth`` has clients show one. ``alpn`` are the protocols to
    choose from, the best first (for HTTP ``"http/1.1"``). ``minimum_version`` is as ``ssl`` writes
    it: ``"TLSv1.2"``. ``ciphers`` are those up to TLS 1.2, as OpenSSL names them. ``clock`` returns
    the time that certificates are made for, in seconds since the epoch (``time.time``), where a
    client's clock is not the real one.

    Raises TypeError, ValueError, and OSError for a file that cannot be read.
    """

    __slots__ = (
        "_alpn",
        "_authority",
        "_ca",
        "_ciphers",
        "_client_auth",
        "_clock",
        "_hosts",
        "_kind",
        "_maximum_version",
        "_minimum_version",
        "_pair",
    )

    # Over thirty lines: every option, a line each.
    @trimmed
    def __init__(
        self,
        *,
        hosts: str | Iterable[str] | None = None,
        cert: PEM | None = None,
        key: PEM | None = None,
        ca: PEM | None = None,
        client_auth: Literal["optional", "required"] | None = None,
        alpn: str | Iterable[str] | None = None,
        minimum_version: str | ssl.TLSVersion | None = None,
        ciphers: str | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        cert, key, ca = map(check.hidden, (cert, key, ca))
        self._kind = ""  # the class method that has made it, if one has
        self._maximum_version = ""
        self._authority: Authority | None = None  # once it was wanted
        self._hosts = check.hosts_or_none(hosts)
        self._client_auth = check.client_auth_or_none(client_auth)
        self._alpn = check.alpn_or_none(alpn)
        self._minimum_version = check.version_or_none(minimum_version)
        self._ciphers = check.ciphers_or_none(ciphers)
        self._clock = check.clock_or_none(clock)
        self._ca = check.split(check.pem_or_none("ca", ca))
        self._pair = _own_pair(check.pem_or_none("cert", cert), check.pem_or_none("key", key))
        self._refuse_without_effect(has_ca=ca is not None)
        if self._pair.certificate or self._ca.certificate:
            self._ask_openssl()

    def _refuse_without_effect(self, *, has_ca: bool) -> None:
        """Raise ValueError for options of which one makes the other useless."""
        if self._ciphers and self._minimum_version == "TLSv1.3":
            raise ValueError(
                "ciphers has no effect with minimum_version='TLSv1.3', whose ciphers are fixed: "
                "leave out one of them"
            )
        if has_ca and not self._ca.certificate:
            raise ValueError("ca has no certificate: pass that of the authority, in PEM")
        if self._pair.certificate:
            for name, value in (("hosts", self._hosts), ("clock", self._clock)):
                if value is not None:
                    raise ValueError(f"{name} has no effect on {_OWN}: leave out {name} or cert")
        elif has_ca and not self._ca.key and self._client_auth is None:
            raise ValueError(
                "ca cannot sign, as its PEM has no key: append it, or pass cert and key, or "
                "client_auth, if it has signed the certificates of clients"
            )

    def _ask_openssl(self) -> None:
        """Raise ValueError for what would be refused in the server's process, or by clients."""
        with importing_once():
            from . import own
        if self._pair.certificate:
            own.check_fits("cert", self._pair)
            old = self._minimum_version in check.OLD_VERSIONS
            own.check_strong(self._pair, "ALL:@SECLEVEL=0" if old else self._ciphers or "")
        if self._ca.certificate:
            own.check_trusted(self._ca.certificate)
        if self._ca.key:
            own.check_fits("ca", self._ca)

    def __repr__(self) -> str:
        given: dict[str, object] = {
            "hosts": self._hosts,
            "client_auth": self._client_auth,
            "alpn": self._alpn,
            "minimum_version": self._minimum_version,
            "ciphers": self._ciphers,
        }
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        return f"{'.'.join(filter(None, ('TLS', self._kind)))}({shown})"

    # What clients must refuse ------------------------------------------------------------------

    @classmethod
    def _bad(cls, kind: str, options: Any) -> Self:
        check.hide(options)
        if wrong := {"cert", "key"} & options.keys():
            raise TypeError(
                f"TLS.{kind} makes its certificate: leave out {' and '.join(sorted(wrong))}"
            )
        made = cls(**options)
        made._kind = kind
        return made

    @classmethod
    @trimmed
    def expired(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate that was valid until a day ago."""
        return cls._bad("expired", options)

    @classmethod
    @trimmed
    def not_yet_valid(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate that is valid in some days."""
        return cls._bad("not_yet_valid", options)

    @classmethod
    @trimmed
    def wrong_host(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate for another host: ``hosts``, or ``wrong-host.invalid``."""
        if options.get("hosts") is None:
            options["hosts"] = WRONG_HOST
        made = cls._bad("wrong_host", options)
        if made.for_any_host:
            raise ValueError('hosts="*" has the host that each client means: name a wrong one')
        return made

    @classmethod
    @trimmed
    def self_signed(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate that no authority has signed."""
        return cls._bad("self_signed", options)

    @classmethod
    @trimmed
    def untrusted(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate of an authority that ``ca_file`` does not have."""
        return cls._bad("untrusted", options)

    @classmethod
    @trimmed
    def wrong_chain(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate of an intermediate authority, which the server leaves out."""
        return cls._bad("wrong_chain", options)

    @classmethod
    @trimmed
    def weak_key(cls, **options: Unpack[Options]) -> Self:
        """TLS with a certificate whose RSA key has 1024 bits."""
        return cls._bad("weak_key", options)

    @classmethod
    @trimmed
    def old_version(cls, **options: Unpack[Options]) -> Self:
        """TLS that speaks TLS 1.1 at most."""
        check.hide(options)
        if options.get("minimum_version") is not None:
            raise TypeError("TLS.old_version sets the versions: leave out minimum_version")
        made = cls._bad("old_version", options)
        made._minimum_version, made._maximum_version = "TLSv1", "TLSv1.1"
        return made

    @classmethod
    @trimmed
    def fails(cls, **options: Unpack[Options]) -> Self:
        """TLS whose handshakes fail: the server answers the client's first message by an alert."""
        return cls._bad("fails", options)

    @classmethod
    @trimmed
    def stalls(cls, **options: Unpack[Options]) -> Self:
        """TLS whose handshakes stop: the server does not answer the client's first message."""
        return cls._bad("stalls", options)

    @classmethod
    @trimmed
    def cut(cls, **options: Unpack[Options]) -> Self:
        """TLS whose connections are closed once the client's first message has come."""
        return cls._bad("cut", options)

    # Certificates of clients -------------------------------------------------------------------

    @trimmed
    def client_certificate(self, name: str) -> tuple[str, str]:
        """A certificate of a client with this common name: the paths of it and of its key, in PEM.

        The server takes it, with ``client_auth``. Both are files that only this user may read, and
        that are removed at the end of the process. Raises ValueError if ``ca`` cannot sign, and
        ImportError without the extra.
        """
        name = check.common_name(name)
        if self._ca.certificate and not self._ca.key:
            raise ValueError("ca cannot sign certificates of clients: append its key to its PEM")
        with importing_once():
            from . import files
        issued = self._issued("client", (), name)
        return files.path_of("client", issued.certificate), files.path_of("key", issued.key)

    # For the server that speaks it -------------------------------------------------------------

    def trusted(self) -> bytes:
        """The certificates that a client has to trust, in PEM. Raises ImportError, OSError."""
        if self._pair.certificate:
            return self._ca.certificate or self._pair.certificate
        return self._ca.certificate if self._ca.key else self._signer().certificate

    def trusted_file(self) -> str:
        """The path of a file with them; raises ImportError, OSError."""
        with importing_once():
            from . import files
        if self._pair.certificate or self._ca.key:
            return files.path_of("ca", self.trusted())
        return self._signer().file

    # Over thirty lines: the fields of the settings, a line each.
    def settings(self, host: str, alpn: tuple[str, ...]) -> Settings:
        """What the server's process needs, where it listens on ``host``.

        ``alpn`` is the protocol's own. Raises ImportError, OSError, ValueError.
        """
        with importing_once():
            from . import files
            from .messages import Settings

        pair = self._pair
        if not pair.certificate:
            pair = Pair(*self._issued(self._kind, self._names(host)))
        client_ca = b""
        if self._client_auth is not None:
            client_ca = self._ca.certificate or self._signer().certificate
        old = check.OLD_VERSIONS
        return Settings(
            certificate=pair.certificate,
            key=bytes(pair.key),
            client_ca=client_ca,
            client_auth=self._client_auth or "none",
            alpn=alpn if self._alpn is None else self._alpn,
            minimum_version=(self._minimum_version or "").replace(".", "_"),
            maximum_version=self._maximum_version.replace(".", "_"),
            ciphers=self._ciphers or "",
            legacy=self._kind == "weak_key" or self._minimum_version in old,
            handshake=self._kind if self._kind in _HANDSHAKES else "normal",
            any_host=self.for_any_host,
            directory=files.to_inherit(),
        )

    @property
    def for_any_host(self) -> bool:
        """Whether a certificate is made for each name that a client asks for."""
        return self._hosts == _ANY_HOST

    def answer(self, wanted: CertificateWanted) -> Certificate:
        """The certificate that a client wants, or why there is none.

        It raises nothing in a thread of the server's: nobody would read the pipe after that.
        """
        with importing_once():
            from .messages import Certificate
        try:
            issued = self._issued(self._kind, (check.host(wanted.host),))
        except BaseException as error:
            if not isinstance(error, Exception) and _may_be_interrupted():
                raise
            why = brief(error, _MOST_TOLD)
            return Certificate(token=wanted.token, certificate=b"", key=b"", error=why)
        return Certificate(
            token=wanted.token, certificate=issued.certificate, key=bytes(issued.key)
        )

    def _names(self, host: str) -> tuple[str, ...]:
        if self._hosts is not None and self._hosts != _ANY_HOST:
            return self._hosts
        host = host.partition("%")[0]  # the scope of an IPv6 address is this machine's
        with contextlib.suppress(ValueError):  # no host that a certificate can name
            return tuple(dict.fromkeys((*LOCAL, check.host(host))))
        return LOCAL

    def _issued(self, kind: str, hosts: tuple[str, ...], name: str | None = None) -> Issued:
        with importing_once():
            from .kinds import certificate
            from .making import Subject
        # Those of clients are judged by the server, whose clock is the real one.
        now = check.told(self._clock if name is None else None)
        return certificate(kind, self._signer(), Subject(hosts, name), now)

    def _signer(self) -> Authority:
        """The authority that signs: from its first use on, the same."""
        with importing_once():
            from . import authority
        if self._authority is None:
            made = authority.of_user(*self._ca) if self._ca.key else authority.of_this_process()
            self._authority = made
        return self._authority


class Terminated:
    """TLS in a server that listens on ``host``; ``alpn`` is what its protocol has by default."""

    name = "tls"

    def __init__(self, tls: TLS, host: str, alpn: tuple[str, ...]) -> None:
        self._tls = tls
        self._host = host
        self._alpn = alpn
        self.asks = tls.for_any_host

    def settings(self) -> Settings:
        """As ``Layer`` has it."""
        return self._tls.settings(self._host, self._alpn)

    def answer(self, event: CertificateWanted) -> Certificate:
        """As ``Layer`` has it."""
        return self._tls.answer(event)


def tls_or_none(name: str, value: Any) -> TLS | None:
    """How a server speaks TLS, as it was asked to."""
    if value is None or isinstance(value, TLS):
        return value
    if isinstance(value, bool):
        return TLS() if value else None
    advice = ""
    if type(value).__name__ == "SSLContext":
        advice = "; pass the files that the context has loaded, TLS(cert=..., key=...)"
    elif callable(value):  # TLS.expired
        advice = "; call it, with parentheses"
    raise TypeError(
        f"{name} must be True, or TLS(...), or None for none, not {check.safely(value)}{advice}"
    )


def _may_be_interrupted() -> bool:
    """Whether Ctrl-C, or another signal, raises in this thread: the main one."""
    return bool(system.thread_id() == threading.main_thread().ident)


def _own_pair(cert: bytes | None, key: bytes | None) -> Pair:
    """A certificate and a key of the user's own; raises ValueError if one is missing."""
    if cert is None:
        if key is not None:
            raise ValueError("key is the key of a certificate: pass cert, too")
        return Pair()
    pair = Pair(check.split(cert).certificate, check.split(key or cert).key)
    if not pair.certificate:
        raise ValueError("cert has no certificate in it, which begins -----BEGIN CERTIFICATE-----")
    if not pair.key:
        raise ValueError("there is no private key: pass key=..., or append it to the PEM of cert")
    return pair
