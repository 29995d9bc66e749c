"""Certificates for tests of TLS, from a CA that the tests make once."""

from __future__ import annotations

import functools
import ssl
from typing import Any, NamedTuple

import trustme

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
