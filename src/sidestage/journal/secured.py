"""What was agreed with a client by TLS, as a record of it tells."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..pristine.imports import importing_once
from ..wire.messages import Seen


class ClientCertificate:
    """The certificate that a client has shown, and that the server has verified."""

    __slots__ = ("der",)

    def __init__(self, der: bytes) -> None:
        self.der = der  # the certificate itself

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        import ssl

        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def common_name(self) -> str | None:
        """The name of its subject; ``None`` without one. Raises ImportError without ``[tls]``."""
        oid = _x509().oid.NameOID.COMMON_NAME
        names = self._parsed().subject.get_attributes_for_oid(oid)
        return str(names[0].value) if names else None

    @property
    def subject(self) -> str:
        """The subject as RFC 4514 writes it. Raises ImportError without ``[tls]``."""
        return str(self._parsed().subject.rfc4514_string())

    def _parsed(self) -> Any:
        return _x509().load_der_x509_certificate(self.der)

    def __eq__(self, other: object) -> bool:
        return self.der == other.der if isinstance(other, ClientCertificate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"<ClientCertificate of {self._told()}>"

    def _told(self) -> str:
        """Whose it is, as far as that can be known."""
        try:
            return repr(self.common_name or self.subject)
        except (ImportError, ValueError):  # of what OpenSSL takes, and cryptography does not
            return f"{len(self.der)} bytes"


class TLSDetails(NamedTuple):
    """What was agreed with a client by TLS.

    ``version`` is as ``ssl`` writes it, such as ``TLSv1.3``, and ``cipher`` as OpenSSL does.
    ``sni`` is the host that the client has asked for, ``alpn`` the protocol that was chosen, each
    ``None`` if there was none. So is ``client_certificate``, a :class:`ClientCertificate`.
    """

    version: str
    cipher: str
    sni: str | None
    alpn: str | None
    client_certificate: ClientCertificate | None


def details(seen: Seen) -> TLSDetails:
    """What a client of ours was told, for users."""
    der = seen.client_certificate
    certificate = None if der is None else ClientCertificate(der)
    return TLSDetails(seen.version, seen.cipher, seen.sni, seen.alpn, certificate)


def _x509() -> Any:
    try:
        with importing_once():
            from cryptography import x509
    except ImportError as error:
        raise ImportError(
            f"to read a certificate takes cryptography, which cannot be imported ({error}): "
            "pip install 'sidestage[tls]'; client_certificate.der is the certificate itself",
            name=error.name,
        ) from error
    return x509
