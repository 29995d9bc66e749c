"""The authority that signs what test servers show: one of this process, shared, or the user's own.

Two threads that make the same at once both use what was there first, so nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...pristine.waits import Clock
from . import files, shared
from .making import ORGANIZATION, Issued, maker
from .options import Secret

_MOST_KEPT = 256  # certificates
_own: dict[str | None, Authority] = {}  # by the directory that shares it


class Authority:
    """Something that signs certificates; ``place`` is the directory that shares it."""

    def __init__(self, ca: Any, place: str | None = None) -> None:
        self.certificate: bytes = ca.cert_pem.bytes()  # PEM
        self.certified = ca._certificate  # public in cryptography, but not in trustme
        self.key = ca._private_key
        self.new_intermediate: Callable[[], Authority] = lambda: Authority(ca.create_child_ca())
        self._place = place
        self._kept: dict[object, Issued] = {}

    @property
    def file(self) -> str:
        """The path of a file with its certificate; raises OSError if none can be written."""
        if self._place is None:
            return files.path_of("ca", self.certificate)
        return shared.certificate_file(self._place, self.certificate)

    def once(self, key: object, make: Callable[[], Issued]) -> Issued:
        """What ``make`` has made for ``key``; it is kept, so that it is made once."""
        if (found := self._kept.get(key)) is not None:
            return found
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        return self._kept.setdefault(key, make())


def new_authority() -> Authority:
    """An authority that nobody knows yet."""
    return Authority(_new())


def of_this_process() -> Authority:
    """The authority of this process, made when first wanted, or the one that it shares.

    Raises ImportError without the extra, OSError or ValueError if what is shared cannot be used.
    """
    place = shared.directory()
    if (found := _own.get(place)) is not None:
        return found
    made = new_authority() if place is None else _shared(place)
    return _own.setdefault(place, made)


def _new() -> Any:
    return maker().trustme.CA(organization_name=ORGANIZATION)


def _shared(place: str) -> Authority:
    def make() -> bytes:
        ca = _new()
        return bytes(ca.private_key_pem.bytes() + ca.cert_pem.bytes())

    pem = Secret(shared.load(place, make))
    ca: Any = None
    try:
        ca = maker().trustme.CA.from_pem(pem, pem)
        why = _why_useless(ca) or _why_spoiled(ca)
    except ValueError as error:
        why = f"is not the key and certificate of an authority ({error})"
    if why:
        raise ValueError(
            f"{shared.NAME}: what is in {place} cannot be used, it {why}: "
            "remove the files there, and a new one is made"
        )
    return Authority(ca, place)


def of_user(certificate: bytes, key: bytes) -> Authority:
    """An authority of the user's own, from PEM; raises ValueError if it cannot sign."""
    try:
        ca = maker().trustme.CA.from_pem(certificate, key)
    except ValueError as error:
        raise ValueError(f"ca: not a certificate and its key in PEM: {error}") from error
    if why := _why_useless(ca):
        raise ValueError(f"ca: its certificate {why}")
    return Authority(ca)


def _why_useless(ca: Any) -> str:
    """Why clients refuse what ``ca`` signs; empty if they do not."""
    made = maker()
    found = {type(one.value): one.value for one in ca._certificate.extensions}
    if made.x509.SubjectKeyIdentifier not in found:
        return (
            "has no subject key identifier, which those that it signs refer to: make it with the "
            "extension subjectKeyIdentifier=hash"
        )
    constraints = found.get(made.x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return (
            "is that of no authority, and clients refuse what it signs: make it with the "
            "extension basicConstraints=critical,CA:TRUE"
        )
    usage = found.get(made.x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return (
            "is for other purposes than to sign certificates, and clients refuse what it signs: "
            "make it with the extension keyUsage=critical,keyCertSign"
        )
    return ""


def _why_spoiled(ca: Any) -> str:
    """What is wrong with an authority that Sidestage has not made so."""
    form = maker().serialization
    encoded = form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo
    certified = ca._certificate.public_key().public_bytes(*encoded)
    if certified != ca._private_key.public_key().public_bytes(*encoded):
        return "is a certificate and the key of another one"
    if ca._certificate.not_valid_after_utc.timestamp() < Clock.wall():
        return "has expired"
    return ""
