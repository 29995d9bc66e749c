"""Which certificate a server shows: a good one, or one that clients refuse for a single reason."""

from __future__ import annotations

from collections.abc import Callable

from .authority import Authority, new_authority
from .making import Issued, Span, Subject, issue, maker

_DAY = 86_400  # seconds
_VALID_DAYS = 397  # as long as browsers allow
_WEAK_BITS = 1024  # of RSA, the least that can be made; OpenSSL's level 2 wants 2048

Kind = Callable[[Authority, Subject, Span], Issued]


def certificate(kind: str, authority: Authority, subject: Subject, now: float) -> Issued:
    """A certificate of this kind at this time (seconds since the epoch); it is made once a day."""
    today = int(now) // _DAY * _DAY
    span = Span(today - _DAY, today + _VALID_DAYS * _DAY)
    make = _BAD.get(kind, _good)
    return authority.once((kind, subject, today), lambda: make(authority, subject, span))


def _good(authority: Authority, subject: Subject, span: Span) -> Issued:
    return issue(subject, span, authority)


def _expired(authority: Authority, subject: Subject, span: Span) -> Issued:
    """Until a day ago at least."""
    return issue(subject, Span(span.begin - 30 * _DAY, span.begin), authority)


def _not_yet_valid(authority: Authority, subject: Subject, span: Span) -> Issued:
    """From a day ahead at least."""
    return issue(subject, Span(span.begin + 3 * _DAY, span.end), authority)


def _self_signed(authority: Authority, subject: Subject, span: Span) -> Issued:
    return issue(subject, span, None)


def _untrusted(authority: Authority, subject: Subject, span: Span) -> Issued:
    """Signed by an authority that nobody trusts, and whose certificate comes with it."""
    other = new_authority()
    leaf = issue(subject, span, other)
    return Issued(leaf.certificate + other.certificate, leaf.key)


def _wrong_chain(authority: Authority, subject: Subject, span: Span) -> Issued:
    """Signed by an intermediate authority, whose certificate does not come with it."""
    try:
        intermediate = authority.new_intermediate()
    except ValueError as error:  # trustme signs with SHA-256, which keys of Ed25519 do not take
        raise ValueError(
            f"ca: trustme cannot sign an intermediate authority with its key ({error}): pass one "
            "whose key is RSA or ECDSA"
        ) from error
    return issue(subject, span, intermediate)


def _weak_key(authority: Authority, subject: Subject, span: Span) -> Issued:
    return issue(subject, span, authority, maker().rsa.generate_private_key(65_537, _WEAK_BITS))


# By the name of the class method of TLS. What the others do wrong is not in the certificate.
_BAD: dict[str, Kind] = {
    "expired": _expired,
    "not_yet_valid": _not_yet_valid,
    "self_signed": _self_signed,
    "untrusted": _untrusted,
    "wrong_chain": _wrong_chain,
    "weak_key": _weak_key,
}
