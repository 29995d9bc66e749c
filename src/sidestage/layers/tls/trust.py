"""What a client in this process is to trust."""

from __future__ import annotations

import ssl


def context(certificates: bytes) -> ssl.SSLContext:
    """A context of a client that trusts these certificates, in PEM, and no others."""
    made = ssl.create_default_context(cadata=certificates.decode("ascii", "replace"))
    # Of an own certificate, its authority need not be there: Python 3.13 has it so by default.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made
