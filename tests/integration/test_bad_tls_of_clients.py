"""What popular clients make of each kind of bad TLS, as docs/bad-tls.md says, and what is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kit.bad_tls_clients import GOOD, KINDS, TABLE, clients, outcome
from kit.client_tables import BEGIN, BRIEF, END, WAIT, Client, Table
from sidestage import TLS, HTTPServer

CLIENTS = clients()
LENIENT = ("curl", "node")  # how weak a key may be was decided when their OpenSSL was built

TOLD = {  # of a client in Python that refuses it
    "TLS.expired()": "considers it expired",
    "TLS.not_yet_valid()": "bad_certificate",
    "TLS.wrong_host()": "bad_certificate",
    "TLS.self_signed()": "have it trust server.ca_file",
    "TLS.untrusted()": "have it trust server.ca_file",
    "TLS.wrong_chain()": "have it trust server.ca_file",
    "TLS.weak_key()": "bad_certificate",
    "TLS.old_version()": "the server takes at least TLSv1 and at most TLSv1.1",
    "TLS.fails()": "failed the TLS handshake on purpose",
    "TLS.stalls()": "stalled the TLS handshake on purpose",
    "TLS.cut()": "cut the TLS handshake on purpose",
    'TLS(client_auth="required")': "the client sent no certificate",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_says(name: str, kind: str) -> None:
    """An error of its own kind; for the version on the page, the very one that is there."""
    client = CLIENTS[name]
    said, error = outcome(client, kind)
    if kind == GOOD:
        assert said == "`'hello'`"
    elif not (kind == "TLS.weak_key()" and name in LENIENT):
        assert isinstance(error, client.errors)
    versions, cells = TABLE.told()
    if versions[name] == client.version():
        assert said == cells[kind, name]


def test_the_page_has_every_kind_and_every_client() -> None:
    _, cells = TABLE.told()
    assert {kind for kind, _ in cells} == {*KINDS}
    assert {*CLIENTS} <= {name for _, name in cells}


def test_a_client_that_is_not_installed_keeps_its_column(tmp_path: Path) -> None:
    table = Table(tmp_path / "page.md", "kind")
    table.page.write_text(f"Before.\n{BEGIN}\n{END}\nAfter.\n")
    both = {name: Client(lambda: "1.2", str, (OSError,)) for name in ("curl", "node")}
    table.write(both, both, ["old", "bad"], lambda client, row: f"{row} once")
    table.write(both, {"curl": both["curl"]}, ["old", "new"], lambda client, row: f"{row} again")
    versions, cells = table.told()
    assert versions == {"curl": "1.2", "node": "1.2"}
    assert cells == {
        ("old", "curl"): "old again",
        ("old", "node"): "old once",
        ("new", "curl"): "new again",
        ("new", "node"): "",
    }
    assert table.page.read_text().startswith("Before.\n")
    assert table.page.read_text().endswith("\nAfter.\n")


@pytest.mark.parametrize("kind", TOLD)
def test_the_server_tells_why_as_soon_as_the_client_has_its_error(kind: str) -> None:
    seconds = BRIEF if kind == "TLS.stalls()" else WAIT
    tls = KINDS[kind]()
    assert isinstance(tls, TLS)
    with HTTPServer(handler=lambda request: "hello", tls=tls) as server:
        with contextlib.suppress(OSError):
            CLIENTS["ssl"].fetch(server.url, server.ca_file, seconds)
        (diagnostic,) = server.diagnostics
        assert not server.received
    assert TOLD[kind] in diagnostic.text
