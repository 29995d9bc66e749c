"""What certificates are good for: judged by ``ssl`` in its strict mode, and by cryptography."""

from __future__ import annotations

import ssl
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.verification import DNSName, PolicyBuilder, Store, VerificationError

from kit.certificates import own_authority
from sidestage import TLS
from sidestage.layers.tls import authority, kinds, own
from sidestage.layers.tls.messages import Settings

HOSTS = ("localhost", "127.0.0.1", "::1")
BAD = [
    TLS.expired,
    TLS.not_yet_valid,
    TLS.wrong_host,
    TLS.self_signed,
    TLS.untrusted,
    TLS.wrong_chain,
    TLS.weak_key,
]
VERIFY_FLAGS = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # as Python 3.13 has them


def server_context(settings: Settings) -> ssl.SSLContext:
    """A context that shows a certificate, however weak it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if settings.legacy:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old versions
        if settings.minimum_version:
            context.minimum_version = ssl.TLSVersion[settings.minimum_version]
        if settings.maximum_version:
            context.maximum_version = ssl.TLSVersion[settings.maximum_version]
    own._load(context, settings.certificate + settings.key)
    return context


def client_context(trusted: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted.decode())
    context.verify_flags |= VERIFY_FLAGS
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """The version that both agree on; raises what the client finds."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname=host)
    for side in (asking, serving) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return asking.version()


def settings_of(tls: TLS) -> Settings:
    return tls.settings("127.0.0.1", ())


def leaf_of(tls: TLS) -> x509.Certificate:
    return x509.load_pem_x509_certificates(settings_of(tls).certificate)[0]


def verify(
    tls: TLS,
    *,
    host: str = "localhost",
    roots: list[x509.Certificate] | None = None,
    between: list[x509.Certificate] | None = None,
    at: datetime | None = None,
) -> None:
    """Verify by another implementation, which can be told all that a client may know."""
    trusted = roots or x509.load_pem_x509_certificates(tls.trusted())
    policy = PolicyBuilder().store(Store(trusted)).time(at or datetime.now(UTC))
    shown = x509.load_pem_x509_certificates(settings_of(tls).certificate)
    policy.build_server_verifier(DNSName(host)).verify(shown[0], [*shown[1:], *(between or [])])


@pytest.mark.parametrize("host", HOSTS)
def test_a_good_one_is_taken_by_strict_clients(host: str) -> None:
    tls = TLS()
    client = client_context(tls.trusted())
    assert shake(server_context(settings_of(tls)), client, host) == "TLSv1.3"


KEYS: dict[str, Callable[[], Any]] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65_537, 2048),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


@pytest.mark.parametrize("kind", KEYS)
def test_an_authority_of_ones_own_may_have_any_key(kind: str) -> None:
    ca = own_authority(KEYS[kind]())
    tls = TLS(ca=ca)
    server, client = server_context(settings_of(tls)), client_context(tls.trusted())
    assert shake(server, client, "localhost") == "TLSv1.3"
    tls.client_certificate("alice")
    if kind.startswith("Ed"):
        with pytest.raises(ValueError, match=r"ca: trustme cannot .* whose key is RSA or ECDSA"):
            settings_of(TLS.wrong_chain(ca=ca))
    else:
        settings_of(TLS.wrong_chain(ca=ca))


def test_another_implementation_takes_a_good_one() -> None:
    verify(TLS())


def test_its_names_are_those_asked_for() -> None:
    tls = TLS(hosts=["api.example.com", "*.shop.example", "192.0.2.1", "my_svc", "bücher.example"])
    server, trusted = server_context(settings_of(tls)), tls.trusted()
    taken = ["api.example.com", "a.shop.example", "192.0.2.1", "my_svc", "bücher.example"]
    for host in taken:
        assert shake(server, client_context(trusted), host)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(server, client_context(trusted), "localhost")


def test_the_host_that_a_server_listens_on_is_among_its_names() -> None:
    for host in ("127.0.0.2", "fe80::1%lo", "my-box.local"):
        settings = TLS().settings(host, ())
        names = x509.load_pem_x509_certificates(settings.certificate)[0].extensions
        found = names.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = [*found.get_values_for_type(x509.DNSName)]
        listed += map(str, found.get_values_for_type(x509.IPAddress))
        assert set(listed) == {*HOSTS, host.partition("%")[0]}


# What OpenSSL says of each: the codes of X509_verify_cert(3).
REASONS = {
    "expired": (10, "certificate has expired"),
    "not_yet_valid": (9, "certificate is not yet valid"),
    "wrong_host": (62, "Hostname mismatch"),
    "self_signed": (18, "self-signed certificate"),
    "untrusted": (19, "self-signed certificate in certificate chain"),
    "wrong_chain": (20, "unable to get local issuer certificate"),
    "weak_key": (66, "EE certificate key too weak"),
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_one_is_refused_and_the_client_says_why(make: Callable[[], TLS]) -> None:
    tls = make()
    client = client_context(tls.trusted())
    client.set_ciphers("DEFAULT:@SECLEVEL=2")  # as Debian's and Python's own have it
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake(server_context(settings_of(tls)), client, "localhost")
    code, message = REASONS[make.__name__]
    assert caught.value.verify_code == code
    assert caught.value.verify_message.startswith(message)


def test_nothing_else_is_wrong_with_one_that_is_out_of_date() -> None:
    now = datetime.now(UTC)
    for tls, at in ((TLS.expired(), -10), (TLS.not_yet_valid(), 10)):
        with pytest.raises(VerificationError):
            verify(tls)
        verify(tls, at=now + timedelta(days=at))


def test_nothing_else_is_wrong_with_one_of_another_host() -> None:
    verify(TLS.wrong_host(), host="wrong-host.invalid")
    verify(TLS.wrong_host(hosts="other.example"), host="other.example")


def test_nothing_else_is_wrong_with_one_of_another_authority() -> None:
    with pytest.raises(VerificationError):
        verify(TLS.untrusted())
    shown = x509.load_pem_x509_certificates(settings_of(TLS.untrusted()).certificate)
    verify(TLS.untrusted(), roots=[shown[1]])


def test_nothing_else_is_wrong_with_one_that_signs_itself() -> None:
    tls = TLS.self_signed()
    server = server_context(settings_of(tls))
    assert shake(server, client_context(settings_of(tls).certificate), "localhost")


def test_nothing_is_wrong_with_a_chain_but_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[authority.Authority] = []
    new = authority.of_this_process().new_intermediate

    def intermediate() -> authority.Authority:
        made.append(new())
        return made[-1]

    monkeypatch.setattr(authority.of_this_process(), "new_intermediate", intermediate)
    tls = TLS.wrong_chain(hosts="chain.example")
    with pytest.raises(VerificationError):
        verify(tls, host="chain.example")
    verify(tls, host="chain.example", between=[made[0].certified])


def test_nothing_is_wrong_with_a_weak_key_but_its_size() -> None:
    tls = TLS.weak_key()
    assert leaf_of(tls).public_key().key_size == 1024  # type: ignore[union-attr]
    client = client_context(tls.trusted())
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    assert shake(server_context(settings_of(tls)), client, "localhost")


def test_an_old_version_is_refused_and_its_certificate_is_good() -> None:
    tls = TLS.old_version()
    server = server_context(settings_of(tls))
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol|protocol.version"):
        shake(server, client_context(tls.trusted()), "localhost")
    verify(tls)
    client = client_context(tls.trusted())
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = ssl.TLSVersion.TLSv1
    assert shake(server, client, "localhost") == "TLSv1.1"


def test_keys_are_quick_ones() -> None:
    key = leaf_of(TLS()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_servers_of_a_day_show_the_same_certificate() -> None:
    """So a process that has bound ahead for the one serves the other."""
    assert settings_of(TLS()) == settings_of(TLS())
    assert settings_of(TLS.expired()) == settings_of(TLS.expired())
    assert settings_of(TLS(hosts="a.example")) != settings_of(TLS())


def test_a_certificate_lasts_as_long_as_browsers_allow_from_a_day_ago() -> None:
    leaf, now = leaf_of(TLS()), datetime.now(UTC)
    assert leaf.not_valid_before_utc < now - timedelta(days=1)
    assert leaf.not_valid_after_utc > now + timedelta(days=300)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=398)


def test_threads_that_make_the_same_at_once_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_own", {})
    threads, together = 4, threading.Barrier(4)

    def make(_: int) -> tuple[bytes, Settings]:
        together.wait(10)
        tls = TLS()
        return tls.trusted(), settings_of(tls)

    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(make, range(threads)))
    assert made == made[:1] * threads


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_MOST_KEPT", 3)
    signer = authority.new_authority()
    subjects = [kinds.Subject((f"{n}.example",)) for n in range(8)]
    made = [kinds.certificate("good", signer, each, 1e9) for each in subjects]
    assert kinds.certificate("good", signer, subjects[-1], 1e9) == made[-1]
    assert len(signer._kept) <= 3


# Clients -----------------------------------------------------------------------------------------


def test_a_certificate_of_a_client_has_its_name_and_is_for_clients_alone() -> None:
    tls = TLS(client_auth="required")
    certificate, key = tls.client_certificate("Alice Smith")
    assert tls.client_certificate("Alice Smith") == (certificate, key)
    made = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    assert made.subject.rfc4514_string() == "CN=Alice Smith,O=Sidestage tests"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
