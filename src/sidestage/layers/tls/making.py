"""Makes a certificate and its key, with the extensions that Python 3.13's strict checks want.

The extra ``tls`` is imported here, when the first is made, and kept. trustme makes authorities.
The rest is made with what that is built on, since some of it trustme does not make: a weak key, a
certificate that signs itself, a name of a client that is no host.
"""

from __future__ import annotations

import functools
import ipaddress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import StateError, shown
from ...pristine.imports import importing_once
from .options import Secret

if TYPE_CHECKING:
    from .authority import Authority

ORGANIZATION = "Sidestage tests"
_DATETIME = ("datetime", "datetime")  # module and name


class Issued(NamedTuple):
    """A certificate, with what has to be sent beside it, and its key: both in PEM."""

    certificate: bytes
    key: bytes


class Span(NamedTuple):
    """From when to when a certificate is valid, in seconds since the epoch."""

    begin: int
    end: int


class Subject(NamedTuple):
    """Whose certificate it is: a server's, by its hosts, or a client's, by a name."""

    hosts: tuple[str, ...]
    name: str | None = None


def maker() -> Any:
    """What makes certificates; raises ImportError, which names the extra, if it is missing."""
    made = _imported()
    if not isinstance(made.dt.datetime, type):
        raise StateError(
            "no certificate can be made while datetime.datetime is replaced by "
            f"{shown(made.dt.datetime)}: start a server with tls=True before that, or replace it "
            "in the module under test alone"
        )
    _show_real_datetime()
    return made


@functools.cache
def _imported() -> Any:
    try:
        with importing_once():
            import datetime as dt

            import trustme
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    except ImportError as error:
        raise ImportError(
            f"certificates are made with trustme, which cannot be imported ({error}): "
            "pip install 'sidestage[tls]', or pass a certificate of your own, "
            "tls=TLS(cert=..., key=...)",
            name=error.name,
        ) from error
    return SimpleNamespace(
        dt=dt,
        ec=ec,
        ed25519=ed25519,
        ed448=ed448,
        hashes=hashes,
        rsa=rsa,
        serialization=serialization,
        trustme=trustme,
        x509=x509,
    )


@functools.cache
def _show_real_datetime() -> None:
    """Have cryptography see ``datetime.datetime`` as Python has it.

    It looks that up when it signs first, and keeps what it has found: under freezegun, a class that
    no date is of later, neither of ours nor of the test's.
    """
    made = _imported()
    found = made.dt.datetime
    real = [one for one in found.__mro__ if (one.__module__, one.__name__) == _DATETIME]
    try:
        if real:
            made.dt.datetime = real[0]
        made.trustme.CA()
    finally:
        made.dt.datetime = found


def new_key() -> Any:
    """A key for a certificate; P-256, which is quick to make and to use."""
    return maker().ec.generate_private_key(maker().ec.SECP256R1())


def issue(subject: Subject, span: Span, signer: Authority | None, key: Any = None) -> Issued:
    """A certificate that ``signer`` has signed; without one, it signs itself."""
    key = key or new_key()
    x509, name = maker().x509, _name_of(subject)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer, above, signing = name, own, key
    if signer is not None:
        issuer, signing = signer.certified.subject, signer.key
        extensions = signer.certified.extensions
        above = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)
    builder = (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(span.begin))
        .not_valid_after(_moment(span.end))
        .add_extension(own, critical=False)
        .add_extension(authority, critical=False)
    )
    for extension, critical in _purpose(subject):
        builder = builder.add_extension(extension, critical=critical)
    # Keys of some kinds have a hash of their own.
    fixed = isinstance(signing, (maker().ed25519.Ed25519PrivateKey, maker().ed448.Ed448PrivateKey))
    return _in_pem(builder.sign(signing, None if fixed else maker().hashes.SHA256()), key)


def _name_of(subject: Subject) -> Any:
    x509 = maker().x509
    names = x509.oid.NameOID
    parts = [x509.NameAttribute(names.ORGANIZATION_NAME, ORGANIZATION)]
    if subject.name is not None:
        parts.append(x509.NameAttribute(names.COMMON_NAME, subject.name))
    return x509.Name(parts)


def _purpose(subject: Subject) -> list[tuple[Any, bool]]:
    """The extensions that say what a certificate is for, and whether each is critical."""
    x509 = maker().x509
    purposes = x509.oid.ExtendedKeyUsageOID
    purpose = purposes.CLIENT_AUTH if subject.name is not None else purposes.SERVER_AUTH
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([purpose]), False),
    ]
    if subject.hosts:
        names = [_general_name(host) for host in subject.hosts]
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def _general_name(host: str) -> Any:
    x509 = maker().x509
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _moment(seconds: int) -> Any:
    """A time as certificates take it."""
    zone = maker().dt.timezone.utc
    return maker().dt.datetime.fromtimestamp(seconds, zone)


def _in_pem(certificate: Any, key: Any) -> Issued:
    made = maker().serialization
    encoding, form = made.Encoding.PEM, made.PrivateFormat.PKCS8
    return Issued(
        bytes(certificate.public_bytes(encoding)),
        Secret(key.private_bytes(encoding, form, made.NoEncryption())),
    )
