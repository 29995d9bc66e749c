"""Makes the ``ssl`` contexts of a server from its settings."""

from __future__ import annotations

import contextlib
import os
import ssl
import warnings
from collections.abc import Generator

from ..messages import Settings

# Of TLS 1.3, for later sessions. A client that leaves without having read one resets the
# connection, and what it has sent is lost.
_TICKETS = 0
_AUTH = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def make_context(settings: Settings, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A context for one certificate (PEM, with its intermediates) and its key.

    Raises ValueError for what OpenSSL refuses.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION  # clients can only harm with it
    context.options |= ssl.OP_NO_COMPRESSION
    context.num_tickets = _TICKETS
    with _telling("the settings"):
        _set_versions(context, settings)
        _set_ciphers(context, settings)
        if settings.alpn:
            context.set_alpn_protocols(list(settings.alpn))
    with _telling("the certificate and its key"), _as_file(certificate + b"\n" + key) as path:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(path, password=b"")
    if settings.client_auth != "none":
        with _telling("the CA of the clients' certificates"):
            context.load_verify_locations(cadata=settings.client_ca.decode("ascii"))
        context.verify_mode = _AUTH[settings.client_auth]
    return context


def _set_versions(context: ssl.SSLContext, settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are asked for by name
        if settings.minimum_version:
            context.minimum_version = ssl.TLSVersion[settings.minimum_version]
        elif settings.legacy:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        if settings.maximum_version:
            context.maximum_version = ssl.TLSVersion[settings.maximum_version]


def _set_ciphers(context: ssl.SSLContext, settings: Settings) -> None:
    ciphers = settings.ciphers or ("DEFAULT" if settings.legacy else "")
    if settings.legacy:
        ciphers += ":@SECLEVEL=0"
    if ciphers:
        context.set_ciphers(ciphers)


@contextlib.contextmanager
def _telling(what: str) -> Generator[None, None, None]:
    """Have errors of OpenSSL say what was wrong; they would count as errors of the socket."""
    try:
        yield
    except (ssl.SSLError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} of TLS cannot be used: {error}") from error


@contextlib.contextmanager
def _as_file(content: bytes) -> Generator[str, None, None]:
    """A path at which this process finds ``content``, and nobody after that.

    ``ssl`` takes certificates and keys from files only. On Linux it is a file in memory.
    """
    if not (hasattr(os, "memfd_create") and os.access("/proc/self/fd", os.X_OK)):
        with _on_disk(content) as path:
            yield path
        return
    fd = os.memfd_create("certificate")
    try:
        _write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def _on_disk(content: bytes) -> Generator[str, None, None]:
    import tempfile  # late: Linux does not need it

    fd, path = tempfile.mkstemp()  # only its owner can read it
    try:
        _write(fd, content)
        yield path
    finally:
        os.unlink(path)
        os.close(fd)


def _write(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]
