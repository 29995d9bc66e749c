"""Whether a certificate and a key of the user's own belong together, as OpenSSL sees it."""

from __future__ import annotations

import os
import ssl

from ...pristine import system
from . import files
from .options import Secret


def check_fits(certificate: bytes, key: bytes) -> None:
    """Raise ValueError, which says why, if a server cannot show this certificate with this key."""
    if b"ENCRYPTED" in key:
        raise ValueError(
            "the private key is encrypted: decrypt it, by `openssl pkey -in key.pem -out plain.pem`"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # how weak it may be, its user decides
    try:
        _load(context, Secret(certificate + key))
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            raise ValueError("the key is not that of the certificate in cert") from None
        raise ValueError(f"OpenSSL cannot read cert and key: {error.reason or error}") from None


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
