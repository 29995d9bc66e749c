"""What a client in this process is to trust."""

from __future__ import annotations

import os
import ssl
import sys


def context(certificates: bytes) -> ssl.SSLContext:
    """A context of a client that trusts these certificates, in PEM, and no others.

    It is what ``ssl.create_default_context`` makes, and does not call that: a test may have put
    this in its place.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Of an own certificate, its authority need not be there: Python 3.13 has it so by default.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if sys.version_info >= (3, 13):
        made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=certificates.decode("ascii", "replace"))
    keys = os.environ.get("SSLKEYLOGFILE")
    if keys and not sys.flags.ignore_environment:
        made.keylog_filename = keys
    return made
