"""Whether a certificate and a key of the user's own belong together, as OpenSSL sees it."""

from __future__ import annotations

import os
import ssl

from ...pristine import system
from . import files
from .options import Pair, Secret

# Of the same kind, as RSA and RSA; of two kinds, as RSA and EC.
_MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


def check_fits(what: str, pair: Pair) -> None:
    """Raise ValueError, which says why, unless the key is that of the first certificate.

    ``what`` is the option that has the certificates.
    """
    if b"ENCRYPTED" in pair.key:
        raise ValueError(
            f"the private key of {what} is encrypted: decrypt it, by "
            "`openssl pkey -in key.pem -out plain.pem`"
        )
    if b"OPENSSH" in pair.key:
        raise ValueError(
            f"the private key of {what} has the form of OpenSSH: convert it, by "
            "`ssh-keygen -p -m PEM -f key.pem`"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        _load(context, Secret(pair.certificate + pair.key))
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise ValueError(f"the key is not that of the first certificate in {what}") from None
        raise ValueError(f"OpenSSL cannot read {what} and key: {error.reason or error}") from None


def check_strong(pair: Pair, ciphers: str) -> None:
    """Raise ValueError if a server with these ciphers shows no certificate that is so weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ciphers:
        context.set_ciphers(ciphers)
    try:
        _load(context, Secret(pair.certificate + pair.key))
    except ssl.SSLError as error:
        raise ValueError(
            f"OpenSSL refuses cert ({error.reason or error}): a server shows one that is weak only "
            "with a lower level of security, as in TLS(ciphers='DEFAULT:@SECLEVEL=0')"
        ) from None


def check_trusted(certificates: bytes) -> None:
    """Raise ValueError if ``ca`` has what is no certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
            cadata=certificates.decode("ascii", "replace")
        )
    except ssl.SSLError as error:
        raise ValueError(f"OpenSSL cannot read ca: {error.reason or error}") from None


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load what OpenSSL takes from files only: of memory, or a file that only we can read."""
    if system.memfd_create is None:
        path = files.path_of("pair", pem)  # pragma: no cover - not on Linux
        try:
            context.load_cert_chain(path)
        finally:
            system.unlink(path)
        return
    fd = system.memfd_create("sidestage", os.MFD_CLOEXEC)
    try:
        while pem:
            pem = pem[system.write(fd, pem) :]
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        system.close(fd)
