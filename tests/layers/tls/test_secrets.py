"""No key is in what is printed: values, messages, logs, and reports that show variables."""

from __future__ import annotations

import pytest
import trustme

from kit.pytest_runs import runner
from sidestage import TLS
from sidestage.layers.tls import options
from sidestage.layers.tls.messages import Certificate
from sidestage.wire.frames import pack
from sidestage.wire.messages import Configure

LEAF = trustme.CA().issue_cert("mine.example")
CERT, KEY = LEAF.cert_chain_pems[0].bytes(), LEAF.private_key_pem.bytes()
MISMATCH = """
def test_it(tmp_path):
    import trustme
    from sidestage import TLS
    a, b = (trustme.CA().issue_cert("mine.example") for _ in range(2))
    a.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    b.private_key_pem.write_to_path(tmp_path / "key.pem")
    TLS(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
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
    result = runner(pytester, monkeypatch)(MISMATCH, "--showlocals")
    text = result.stdout.str() + result.stderr.str()
    assert "the key is not that of" in text
    assert "secret" in text
    assert "PRIVATE" not in text
