"""Every wrong argument of ``TLS`` gets an error that names it and says what to write."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kit.certificates import own_authority, usage
from sidestage import TLS, HTTPServer
from sidestage.layers.tls import authority, kinds
from sidestage.layers.tls.making import Subject

CA = trustme.CA()
LEAF = CA.issue_cert("mine.example")
CERT = b"".join(blob.bytes() for blob in LEAF.cert_chain_pems)
KEY = LEAF.private_key_pem.bytes()
CA_CERT, CA_KEY = CA.cert_pem.bytes(), CA.private_key_pem.bytes()
RSA_KEY = CA.issue_cert("a.example", key_type=trustme.KeyType.RSA).private_key_pem.bytes()
OPENSSH = serialization.load_pem_private_key(KEY, None).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.OpenSSH,
    serialization.NoEncryption(),
)
DER = ssl.PEM_cert_to_DER_cert(CERT.decode())
NONSENSE = CA_CERT.replace(b"M", b"!")
ENCRYPTED = KEY.replace(b"EC PRIVATE", b"ENCRYPTED PRIVATE")


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"hosts": 7}, TypeError, 'hosts must be a str or several, as in hosts="api.example.com"'),
        ({"hosts": b"a"}, TypeError, "hosts must be a str or several"),
        ({"hosts": ["a", 7]}, TypeError, "hosts must be text, .* and 7 is none"),
        ({"hosts": []}, ValueError, "hosts must name one at least"),
        ({"hosts": ["*", "a"]}, ValueError, 'hosts="\\*" is any host, and stands alone'),
        ({"hosts": ""}, ValueError, "hosts: '' is no host"),
        ({"hosts": "https://a.example"}, ValueError, "without a scheme or a port"),
        ({"hosts": "a.example:443"}, ValueError, "hosts: 'a.example:443' is no host"),
        ({"hosts": "[::1]"}, ValueError, "hosts: '\\[::1\\]' is no host"),
        ({"hosts": "::x"}, ValueError, "hosts: '::x' is no host"),
        ({"hosts": "a..b"}, ValueError, "hosts: 'a..b' is no host"),
        ({"hosts": "a.."}, ValueError, "hosts: 'a..' is no host"),
        ({"hosts": "a" * 64}, ValueError, "is no host"),
        ({"hosts": "ü" * 70}, ValueError, "is no host by IDNA 2008 .Label too long"),
        ({"hosts": "☃.net"}, ValueError, "no host by IDNA 2008 .*U.2603.* can be written in ASCII"),
        ({"hosts": "ü..example"}, ValueError, "no host by IDNA 2008 .Empty Label"),
        ({"hosts": "ü:443"}, ValueError, "no host by IDNA 2008 .*U.003A"),
        ({"hosts": "\u200d.example"}, ValueError, "no host by IDNA 2008"),
        ({"hosts": "*.-ü.example"}, ValueError, "no host by IDNA 2008 .*hyphen"),
        ({"hosts": "192.168.1.300"}, ValueError, "'192.168.1.300' is no host: it ends as an IPv4"),
        ({"hosts": ["a", "*.0.0.1"]}, ValueError, "'\\*.0.0.1' is no host: it ends as an IPv4"),
        ({"hosts": "\uff11.\uff12"}, ValueError, "is no host: it ends as an IPv4"),
        ({"hosts": "*.::1"}, ValueError, "hosts: '\\*.::1' is no host"),
        ({"alpn": 7}, TypeError, 'alpn must be a str or several, as in alpn="h2"'),
        ({"alpn": [b"h2"]}, TypeError, "alpn must be text, .* and b'h2' is none"),
        ({"alpn": [""]}, ValueError, "alpn: '' is no name of a protocol"),
        ({"alpn": "x" * 256}, ValueError, "1 to 255 ASCII characters"),
        ({"client_auth": True}, ValueError, 'client_auth must be "required" or "optional"'),
        ({"minimum_version": "1.2"}, ValueError, "minimum_version must be one of 'TLSv1', .*'1.2'"),
        ({"minimum_version": 3}, ValueError, "minimum_version must be one of"),
        ({"minimum_version": ssl.TLSVersion.SSLv3}, ValueError, "minimum_version must be one of"),
        ({"ciphers": "nonsense"}, ValueError, "OpenSSL finds none by 'nonsense'"),
        ({"ciphers": "ECDHE+AESGCM", "minimum_version": "TLSv1.3"}, ValueError, "has no effect"),
        ({"ciphers": 7}, TypeError, "ciphers must be text"),
        ({"clock": 7}, TypeError, "clock must be a function .* such as time.time, not 7"),
        ({"key": KEY}, ValueError, "pass cert, too"),
        ({"cert": CERT}, ValueError, "there is no private key"),
        ({"cert": KEY}, ValueError, "cert has no certificate"),
        ({"cert": b"x", "key": KEY}, ValueError, "cert is not PEM"),
        ({"cert": CERT.decode()}, TypeError, "pass PEM as bytes, cert=pem.encode\\(\\)"),
        ({"cert": ""}, OSError, "cert cannot be read: Is a directory"),
        ({"key": "a\0b"}, ValueError, "key: 'a.x00b' is no path"),
        (
            {"cert": DER},
            ValueError,
            "cert is not PEM.* seems to be DER or PKCS #12: .*openssl x509",
        ),
        ({"cert": CERT, "key": DER}, ValueError, "key is not PEM.* DER .*openssl pkey -in"),
        ({"cert": [CERT]}, TypeError, "cert must be the path of a PEM file, or its bytes, not a l"),
        ({"cert": 7}, TypeError, "cert must be the path of a PEM file, or its bytes, not 7"),
        (
            {"cert": CERT, "key": CA_KEY},
            ValueError,
            "the key is not that of the first certificate in cert",
        ),
        (
            {"cert": CERT, "key": RSA_KEY},
            ValueError,
            "the key is not that of the first certificate in cert",
        ),
        (
            {"cert": CERT, "key": CERT + RSA_KEY + KEY},
            ValueError,
            "the key is not that of the first certificate in cert",
        ),
        ({"cert": CERT, "key": OPENSSH}, ValueError, "OpenSSH: convert it, by `ssh-keygen -p"),
        ({"cert": CERT, "key": ENCRYPTED}, ValueError, "encrypted: decrypt it, by `openssl pkey"),
        ({"cert": CERT, "key": KEY, "hosts": "a"}, ValueError, "hosts has no effect"),
        ({"cert": CERT, "key": KEY, "clock": time.time}, ValueError, "clock has no effect"),
        ({"ca": CA_CERT}, ValueError, "ca cannot sign, as its PEM has no key"),
        ({"ca": CA_KEY}, ValueError, "ca has no certificate"),
        ({"ca": CA_CERT + KEY}, ValueError, "the key is not that of the first certificate in ca"),
        ({"ca": CA_CERT + ENCRYPTED}, ValueError, "the private key of ca is encrypted"),
        ({"ca": NONSENSE, "client_auth": "required"}, ValueError, "OpenSSL cannot read ca"),
    ],
)
def test_a_wrong_argument(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        TLS(**options)


def test_a_context_cannot_be_passed() -> None:
    with pytest.raises(TypeError, match="does not give out its key: pass the files"):
        TLS(cert=ssl.create_default_context())  # type: ignore[arg-type]


def test_a_file_that_is_not_there_or_is_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cert cannot be read: .*missing\.pem"):
        TLS(cert=tmp_path / "missing.pem")
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"wrong.pem' is not PEM"):
        TLS(cert=str(wrong))
    wrong.write_bytes(CERT.replace(b"M", b"!"))
    with pytest.raises(ValueError, match="OpenSSL cannot read cert and key"):
        TLS(cert=wrong, key=KEY)


def test_what_a_bad_kind_does_not_take() -> None:
    with pytest.raises(TypeError, match=r"TLS.expired makes its certificate: leave out cert"):
        TLS.expired(cert=CERT)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"TLS.old_version sets the versions"):
        TLS.old_version(minimum_version="TLSv1.2")
    with pytest.raises(ValueError, match="name a wrong one"):
        TLS.wrong_host(hosts="*")


@pytest.mark.parametrize(
    "told, kind, message",
    [
        ("now", TypeError, "clock must return seconds since the epoch.* not 'now'$"),
        (True, TypeError, "clock must return"),
        (0.0, ValueError, "clock must tell a time from 2001 to 2999"),
        (1e12, ValueError, "clock must tell"),
        (float("nan"), ValueError, "clock must tell .* not nan"),
        (float("inf"), ValueError, "clock must tell .* not inf"),
        pytest.param(10**400, ValueError, "clock must tell .* not 1000", id="huge"),
        (dt.datetime(2030, 1, 1), TypeError, r"datetime.datetime\(2030.*clock=moment.timestamp"),  # noqa: DTZ001 - a naive one
        (dt.datetime(2030, 1, 1, tzinfo=dt.UTC), TypeError, "clock=moment.timestamp"),
        (dt.date(2030, 1, 1), TypeError, r"not datetime.date\(2030, 1, 1\)$"),
    ],
)
def test_a_clock_that_tells_no_time(told: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        TLS(clock=lambda: told).settings("127.0.0.1", ())


@pytest.mark.parametrize(
    "name, kind", [("", ValueError), ("x" * 65, ValueError), ("a\nb", ValueError), (7, TypeError)]
)
def test_a_client_without_a_name(name: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the name of a client"):
        TLS().client_certificate(name)


def test_a_certificate_of_a_client_needs_an_authority_that_signs() -> None:
    with pytest.raises(ValueError, match="append its key to its PEM"):
        TLS(ca=CA_CERT, client_auth="required").client_certificate("alice")


def test_an_authority_that_clients_would_not_take() -> None:
    with pytest.raises(ValueError, match=r"that of no authority.*CA:TRUE"):
        TLS(ca=CERT + KEY).settings("127.0.0.1", ())
    with pytest.raises(ValueError, match=r"ca: its certificate is for other .*keyCertSign"):
        TLS(ca=own_authority(usage=usage(signs=False))).settings("127.0.0.1", ())
    TLS(ca=own_authority(usage=None)).settings("127.0.0.1", ())


def test_a_weak_certificate_of_ones_own_is_taken_where_its_user_says_so() -> None:
    weak = kinds.certificate("weak_key", authority.new_authority(), Subject(("a",)), time.time())
    pair: dict[str, Any] = {"cert": weak.certificate, "key": weak.key}
    with pytest.raises(ValueError, match=r"EE_KEY_TOO_SMALL.*ciphers='DEFAULT:@SECLEVEL=0'"):
        TLS(**pair)
    with HTTPServer(tls=TLS(**pair, ciphers="DEFAULT:@SECLEVEL=0")):
        pass
    with HTTPServer(tls=TLS(**pair, minimum_version="TLSv1")):
        pass


class BytesPath:
    """A path that is bytes, as ``os.scandir(b".")`` has them."""

    def __init__(self, path: Path) -> None:
        self._path = os.fsencode(path)

    def __fspath__(self) -> bytes:
        return self._path


# What is right -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [bytes, "path", str, "path of bytes", memoryview])
def test_a_certificate_of_ones_own(read: Any, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"a comment\n" + CERT)
    key.write_bytes(KEY)
    known: dict[Any, Callable[[Path], Any]] = {
        bytes: Path.read_bytes,
        str: str,
        "path of bytes": BytesPath,
        memoryview: lambda path: memoryview(path.read_bytes()),
    }
    as_given = known.get(read, Path)
    tls = TLS(cert=as_given(cert), key=as_given(key))
    settings = tls.settings("127.0.0.1", ())
    assert (settings.certificate, settings.key) == (CERT, KEY)
    assert tls.trusted() == CERT
    assert TLS(cert=CERT, key=KEY, ca=CA_CERT).trusted() == CA_CERT


def test_a_host_with_the_dot_of_the_root_is_named_without_it() -> None:
    for written, named in ("a.example.", "a.example"), ("*.example.", "*.example"), ("*", "*"):
        assert repr(TLS(hosts=written)) == f"TLS(hosts=('{named}',))"


@pytest.mark.parametrize(
    "written, named",
    [
        ("größe.example", "xn--gre-6ka8i.example"),  # not xn--grsse-kua, as IDNA 2003 has it
        ("*.Größe.Example", "*.xn--gre-6ka8i.example"),
        ("ς.gr", "xn--3xa.gr"),
        ("cafe\u0301.example", "xn--caf-dma.example"),
        ("日本。jp。", "xn--wgv71a.jp"),
        ("\uff11\uff19\uff12.0.2.\uff11", "192.0.2.1"),
        ("xn--n3h.net", "xn--n3h.net"),  # ASCII is taken as it is
        ("Not-IDNA_.Example", "Not-IDNA_.Example"),
    ],
)
def test_a_host_with_other_letters_is_that_of_idna_2008(written: str, named: str) -> None:
    assert repr(TLS(hosts=written)) == f"TLS(hosts=('{named}',))"


def test_a_certificate_and_its_key_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(KEY + CERT)
    settings = TLS(cert=both).settings("127.0.0.1", ())
    assert (settings.certificate, settings.key) == (CERT, KEY)


def test_an_authority_of_ones_own_signs() -> None:
    tls = TLS(ca=CA_CERT + CA_KEY, client_auth="required")
    assert tls.trusted() == CA_CERT
    assert tls.settings("127.0.0.1", ()).client_ca == CA_CERT
    client = Path(tls.client_certificate("alice")[0]).read_bytes()
    issuer = x509.load_pem_x509_certificate(client).issuer
    assert issuer == x509.load_pem_x509_certificate(CA_CERT).subject


def test_an_authority_without_its_key_is_that_of_the_clients() -> None:
    tls = TLS(ca=CA_CERT, client_auth="optional")
    assert tls.settings("127.0.0.1", ()).client_ca == CA_CERT
    assert tls.trusted() == TLS().trusted()


def test_options_reach_the_settings() -> None:
    tls = TLS(
        alpn=["h2", "http/1.1"],
        client_auth="optional",
        minimum_version=ssl.TLSVersion.TLSv1_2,
        ciphers="ECDHE+AESGCM",
    )
    settings = tls.settings("127.0.0.1", ("mine",))
    assert settings.alpn == ("h2", "http/1.1")
    assert settings.client_auth == "optional"
    assert settings.minimum_version == "TLSv1_2"
    assert settings.ciphers == "ECDHE+AESGCM"
    assert not settings.legacy
    assert TLS().settings("127.0.0.1", ("mine",)).alpn == ("mine",)
    assert TLS(alpn=()).settings("127.0.0.1", ("mine",)).alpn == ()
    assert TLS(minimum_version="TLSv1.1").settings("127.0.0.1", ()).legacy
    assert TLS(hosts="*").settings("127.0.0.1", ()).any_host
    assert [TLS.fails().settings("", ()).handshake, TLS().settings("", ()).handshake] == [
        "fails",
        "normal",
    ]


def test_a_value_shows_how_it_was_made_and_no_key() -> None:
    assert repr(TLS()) == "TLS()"
    assert repr(TLS.expired(hosts="a.example")) == "TLS.expired(hosts=('a.example',))"
    assert repr(TLS(client_auth="required", alpn="h2")) == (
        "TLS(client_auth='required', alpn=('h2',))"
    )
    assert "PRIVATE" not in repr(TLS(cert=CERT, key=KEY))
