"""No key is in what is printed: values, messages, logs, and reports that show variables."""

from __future__ import annotations

from typing import Any

import pytest
import trustme

from kit.pytest_runs import runner
from sidestage import TLS, HTTPServer
from sidestage.layers.tls import options
from sidestage.layers.tls.messages import Certificate
from sidestage.wire.frames import pack
from sidestage.wire.messages import Configure

LEAF = trustme.CA().issue_cert("mine.example")
CERT, KEY = LEAF.cert_chain_pems[0].bytes(), LEAF.private_key_pem.bytes()
MISMATCH = """
def test_it(tmp_path):
    import trustme
    from sidestage import TLS, HTTPServer
    a, b = (trustme.CA().issue_cert("mine.example") for _ in range(2))
    a.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    b.private_key_pem.write_to_path(tmp_path / "key.pem")
    TLS(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
"""
# Every wrong use of bytes that may have a key in them.
PASSED = """
import os
import pytest
import trustme
from sidestage import TLS, HTTPServer

class Options:  # its fields are no variables of the test
    CA = trustme.CA()
    LEAF = CA.issue_cert("mine.example")
    KEY, CERT = LEAF.private_key_pem.bytes(), LEAF.cert_chain_pems[0].bytes()
    OTHER = trustme.CA().private_key_pem.bytes()
    CA_PEM = CA.cert_pem.bytes() + CA.private_key_pem.bytes()
    NOT_PEM = KEY.replace(b"-----", b"")
    MADE = {
        "mismatch": lambda o: TLS(cert=o.CERT, key=o.OTHER),
        "no cert": lambda o: TLS(key=o.KEY),
        "no cert in a bytearray": lambda o: TLS(key=bytearray(o.KEY)),
        "text": lambda o: TLS(cert=o.CERT, key=o.KEY.decode()),
        "tuple": lambda o: TLS(cert=(o.CERT, o.KEY)),
        "dict": lambda o: TLS(cert={"key": o.KEY}),
        "cut": lambda o: TLS(cert=o.CERT, key=o.KEY[:-40]),
        "no PEM": lambda o: TLS(cert=o.CERT, key=o.NOT_PEM),
        "a file that is no PEM": lambda o: TLS(cert=o.CERT, key="not.pem"),
        "ca": lambda o: TLS.expired(ca=o.KEY),
        "ca and cert": lambda o: TLS.untrusted(ca=o.CA_PEM, cert=o.CERT, key=o.KEY),
        "old": lambda o: TLS.old_version(ca=o.CA_PEM, minimum_version="TLSv1.2"),
        "wrong": lambda o: TLS.wrong_host(ca=o.CA_PEM, hosts="*"),
        "another option": lambda o: TLS(ca=o.CA_PEM, alpn=7),
        "address": lambda o: HTTPServer(("192.0.2.1", 1), tls=TLS(cert=o.CERT, key=o.KEY)).start(),
    }
    with open("keys", "wb") as file:
        file.write(KEY + OTHER + CA.private_key_pem.bytes())
    with open("not.pem", "wb") as file:
        file.write(NOT_PEM)

@pytest.mark.parametrize("made", Options.MADE)
def test_it(made):
    Options.MADE[made](Options)
"""


def test_what_configures_a_server_is_printed_without_it() -> None:
    settings = TLS(cert=CERT, key=KEY).settings("127.0.0.1", ())
    message = Configure(
        protocol="http",
        settings=b"",
        host="127.0.0.1",
        port=0,
        path=None,
        cwd=None,
        poll_interval=0.5,
        handler_timeout=None,
        keep=1,
        backlog=1,
        layers=(("tls", pack(settings)),),
    )
    answer = Certificate(token=1, certificate=CERT, key=KEY)
    made = TLS()._issued("", ("mine.example",))
    for shown in map(repr, (settings, message, answer, made, options.split(KEY))):
        assert "PRIVATE" not in shown
    assert "protocol='http', host='127.0.0.1', port=0, path=None, layers=('tls',)" in repr(message)


def test_a_report_that_shows_variables_does_not_show_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = runner(pytester, monkeypatch)(MISMATCH, "--showlocals", "--full-trace")
    text = result.stdout.str() + result.stderr.str()
    assert "the key is not that of" in text
    assert "secret" in text
    assert "PRIVATE" not in text


@pytest.mark.parametrize("trace", ["--tb=auto", "--full-trace"])
def test_keys_that_were_passed_as_bytes_are_in_no_report(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    result = runner(pytester, monkeypatch)(PASSED, "--showlocals", trace, "-vv")
    text = result.stdout.str() + result.stderr.str()
    result.assert_outcomes(failed=15)
    lines = [line for line in (pytester.path / "keys").read_text().split("\n") if "-" not in line]
    assert len(lines) > 6
    for line in lines:
        assert not line or line[:20] not in text


@pytest.mark.parametrize("passed", [KEY, KEY.decode(), (CERT, KEY), {"key": KEY}])
def test_an_error_does_not_quote_one_that_is_passed_in_place_of_tls(passed: Any) -> None:
    with pytest.raises(TypeError, match=f"not a {type(passed).__name__}") as caught:
        HTTPServer(tls=passed)
    assert "PRIVATE" not in str(caught.value)
