"""Certificates where the extra is missing, and where a test has changed clocks and files."""

from __future__ import annotations

import datetime as dt
import ssl
import sys
import time
import urllib.request
from unittest import mock

import pytest
from cryptography import x509

from kit.child_coverage import SETTINGS
from kit.scripts import run_script
from kit.tls_clients import join
from sidestage import TLS, HTTPServer, StateError
from sidestage.errors import brief
from sidestage.layers.tls import authority

FETCH = """
import urllib.request
from sidestage import HTTPServer, TLS

def fetch(tls=True):
    with HTTPServer(tls=tls) as server:
        return urllib.request.urlopen(server.url, context=server.client_context()).status
"""
MISSING = """
import sys
sys.modules["trustme"] = None
"""


def shown(tls: TLS) -> x509.Certificate:
    settings = tls.settings("127.0.0.1", ())
    return x509.load_pem_x509_certificates(settings.certificate)[0]


# The extra ---------------------------------------------------------------------------------------


def test_a_missing_extra_is_named_and_leaves_nothing_running() -> None:
    printed = run_script(
        f"""{MISSING}
import psutil
from sidestage import HTTPServer, TLS
server = HTTPServer(tls=True)
calls = (server.start, lambda: server.ca_file, server.client_context, server.client_env,
         lambda: TLS().client_certificate("alice"))
for call in calls:
    try:
        call()
    except ImportError as error:
        assert error.name == "trustme", error.name
        print(error)
print(server.state)
from sidestage.process.pool import pool
pool.close()
print(psutil.Process().children())
"""
    )
    *errors, state, running = printed.splitlines()
    assert len(errors) == 5
    assert {
        "pip install 'sidestage[tls]', or pass a certificate of your own, tls=TLS(cert=..., "
        "key=...)" in error
        for error in errors
    } == {True}
    assert (state, running) == ("State.FAILED", "[]")


def test_a_host_with_other_letters_needs_the_extra() -> None:
    with mock.patch.dict(sys.modules, {"idna": None}):
        assert repr(TLS(hosts="xn--tda.example")) == "TLS(hosts=('xn--tda.example',))"
        with pytest.raises(
            ImportError, match=r"'ü.example' .* pip install 'sidestage\[tls\]', or w"
        ):
            TLS(hosts="ü.example")


def test_a_certificate_of_ones_own_needs_no_extra() -> None:
    import trustme

    leaf = trustme.CA().issue_cert("127.0.0.1")
    pem = leaf.private_key_and_cert_chain_pem.bytes()
    printed = run_script(f"{MISSING}{FETCH}\nprint(fetch(TLS(cert={pem!r})))")
    assert printed == "200\n"


def test_a_plain_server_imports_nothing_of_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTINGS, raising=False)  # coverage.py imports more
    printed = run_script(
        """
        import sys
        import sidestage
        with sidestage.HTTPServer() as http, sidestage.SMTPServer(), sidestage.TCPServer():
            http.received
        wrong = ("ssl", "trustme", "cryptography", "idna", "sidestage.layers.tls.tls")
        print([name for name in wrong if name in sys.modules])
        sidestage.TLS
        print([name for name in wrong if name in sys.modules])
        """
    )
    assert printed == "[]\n['sidestage.layers.tls.tls']\n"


# Clocks ------------------------------------------------------------------------------------------


def test_a_frozen_clock_changes_no_certificate() -> None:
    """A client's OpenSSL knows nothing of it."""
    printed = run_script(
        f"""{FETCH}
from freezegun import freeze_time
with freeze_time("1999-01-01"):
    print(fetch())
print(fetch())
"""
    )
    assert printed == "200\n200\n"


def test_certificates_are_made_after_a_first_one_under_a_frozen_clock() -> None:
    """What makes them keeps the class of dates that it has seen first, for the test's own, too."""
    printed = run_script(
        """
from freezegun import freeze_time
from sidestage import TLS
with freeze_time("2020-01-01"):
    TLS().client_certificate("alice")
TLS().client_certificate("bob")
import datetime, trustme
datetime.datetime.now()
trustme.CA().issue_cert("localhost")
print("made")
"""
    )
    assert printed == "made\n"


def test_a_travelled_clock_changes_no_certificate() -> None:
    printed = run_script(
        f"""{FETCH}
import time_machine
with time_machine.travel(0):
    print(fetch())
print(fetch())
"""
    )
    assert printed == "200\n200\n"


def test_a_clock_of_ones_own_says_when_certificates_are_made() -> None:
    now = dt.datetime(2040, 6, 1, tzinfo=dt.UTC)
    day = dt.timedelta(days=1)
    good, expired = (shown(make(clock=now.timestamp)) for make in (TLS, TLS.expired))
    assert good.not_valid_before_utc == now - day
    assert good.not_valid_after_utc > now + 300 * day
    assert expired.not_valid_after_utc == now - day


@pytest.mark.parametrize("year", [2010, 2035])
def test_certificates_of_clients_are_for_the_clock_of_the_server(year: int) -> None:
    clock = dt.datetime(year, 5, 5, tzinfo=dt.UTC).timestamp
    tls = TLS(clock=clock, client_auth="required")
    with HTTPServer(tls=tls) as server:
        context = server.client_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a client of that year would take the server's
        context.load_cert_chain(*tls.client_certificate("alice"))
        urllib.request.urlopen(server.url, context=context).close()
        assert "as 'alice'" in server.explain()


def test_a_frozen_clock_can_be_that_of_certificates() -> None:
    freezegun = pytest.importorskip("freezegun")
    tls = TLS(clock=lambda: time.time())  # freezegun replaces it where it is looked up
    with freezegun.freeze_time("2031-05-04"):
        frozen = shown(tls)
    assert str(frozen.not_valid_before_utc) == "2031-05-03 00:00:00+00:00"
    assert shown(tls).not_valid_before_utc < dt.datetime.now(dt.UTC)


def test_a_clock_is_asked_at_each_start() -> None:
    asked: list[float] = []

    def clock() -> float:
        asked.append(time.time())
        return asked[-1]

    server = HTTPServer(tls=TLS(clock=clock))
    for started in (1, 2):
        with server:
            assert len(asked) == started
            urllib.request.urlopen(server.url, context=server.client_context()).close()


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), OSError("no disk")])
def test_a_clock_that_raises_at_a_start_leaves_nothing_running(raised: BaseException) -> None:
    server = HTTPServer(tls=TLS(clock=mock.Mock(side_effect=raised)))
    with pytest.raises(type(raised)) as caught:
        server.start()
    assert str(raised) in str(caught.value)
    server.tls = None
    with server:
        urllib.request.urlopen(server.url).close()


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), RuntimeError("no time")])
def test_a_clock_that_raises_later_disturbs_no_other_client(raised: BaseException) -> None:
    clock = mock.Mock(side_effect=[time.time(), raised, time.time()])
    with HTTPServer(tls=TLS(hosts="*", clock=clock)) as server:
        with pytest.raises(OSError, match=r"(?i)unrecognized.name"):
            join(server, host="a.example")
        (diagnostic,) = server.diagnostics
        assert f"that asked for 'a.example': {brief(raised)}" in diagnostic.text
        with join(server, host="b.example") as client:
            assert client.version()


def test_a_replaced_datetime_is_said_with_a_cure() -> None:
    with mock.patch("datetime.datetime"), pytest.raises(StateError, match="is replaced by <Magic"):
        authority.new_authority()


# Files -------------------------------------------------------------------------------------------


def test_files_are_real_where_a_test_has_others() -> None:
    printed = run_script(
        f"""{FETCH}
import os
from pyfakefs.fake_filesystem_unittest import Patcher
with Patcher() as patcher:
    print(fetch())
    with HTTPServer(tls=True) as server:
        path = server.ca_file
        print(os.path.exists(path))
        patcher.fs.add_real_file(path)
        print(os.path.exists(path))
print(os.path.exists(path), fetch())
import trustme, cryptography.x509
"""
    )
    assert printed == "200\nFalse\nTrue\nTrue 200\n"
