"""Certificates for tests of TLS, from a CA that the tests make once."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from typing import Any, NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from sidestage.layers.tls.messages import Settings


class Leaf(NamedTuple):
    """A certificate with its chain, and its key; both PEM."""

    certificate: bytes
    key: bytes


@functools.cache
def authority() -> trustme.CA:
    """The CA that the tests' clients trust."""
    return trustme.CA()


@functools.cache
def leaf(*hosts: str) -> Leaf:
    """A certificate for ``hosts``, or for this machine."""
    made = authority().issue_cert(*hosts or ("localhost", "127.0.0.1", "::1"))
    certificates = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    return Leaf(certificates, made.private_key_pem.bytes())


def settings(**others: Any) -> Settings:
    """Settings of the layer, with a certificate for this machine unless ``others`` has one."""
    made = leaf()
    return Settings(**{"certificate": made.certificate, "key": made.key, **others})


def client_context(**attributes: Any) -> ssl.SSLContext:
    """A client's context that trusts the CA; ``attributes`` are set on it."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def own_authority(key: Any = None, *, days: int = 9, **named: Any) -> bytes:
    """Certificate and key of an authority as users make them, in one PEM.

    It has the extensions that an authority needs, but for those that ``named`` has in place of
    them: ``ca``, ``usage`` and ``own``; ``None`` is none.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "own")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(
        name, name, key.public_key(), 7, now - dt.timedelta(99), now + dt.timedelta(days)
    )
    extensions: dict[str, Any] = {
        "ca": x509.BasicConstraints(ca=True, path_length=None),
        "usage": usage(signs=True),
        "own": x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
    }
    for which, extension in {**extensions, **named}.items():
        if extension is not None:
            built = built.add_extension(extension, critical=which != "own")
    fixed = isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    certificate = built.sign(key, None if fixed else hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, *form)
    return certificate.public_bytes(serialization.Encoding.PEM) + bytes(encoded)


def usage(*, signs: bool) -> x509.KeyUsage:
    """The extension of a key that signs certificates, or one that does not."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
