"""The option ``tls`` of servers, on real sockets: what clients get, and what they need."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from sidestage import TLS, HTTPServer, SMTPServer, StateError, TCPServer, UDPServer, classic
from sidestage.process.pool import pool

SCHEMES = [(HTTPServer, "https"), (SMTPServer, "smtps"), (TCPServer, "tls")]


def get(server: HTTPServer, context: ssl.SSLContext | None = None, path: str = "/") -> bytes:
    """The body of an answer."""
    context = context or server.client_context()
    with urllib.request.urlopen(f"{server.url}{path}", context=context, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def connect(server: Any, host: str | None = "localhost") -> ssl.SSLSocket:
    """A connection of a client that trusts the server."""
    context = server.client_context()
    connection = socket.create_connection((server.host, server.port), timeout=10)
    return context.wrap_socket(connection, server_hostname=host)


@pytest.mark.parametrize("kind, scheme", SCHEMES)
def test_each_server_of_streams_speaks_tls(kind: type[Any], scheme: str) -> None:
    with kind(tls=True) as server:
        assert server.url == f"{scheme}://127.0.0.1:{server.port}"
        assert server.scheme == scheme
        with connect(server) as client:
            assert client.version() == "TLSv1.3"
            assert client.getpeercert()["subjectAltName"] == (
                ("DNS", "localhost"),
                ("IP Address", "127.0.0.1"),
                ("IP Address", "0:0:0:0:0:0:0:1"),
            )


def test_clients_of_each_protocol_are_answered() -> None:
    with HTTPServer(handler=lambda request: request.path, tls=True) as server:
        assert get(server, path="/here") == b"/here"
    with SMTPServer(tls=True) as mail:
        with smtplib.SMTP_SSL(mail.host, mail.port, context=mail.client_context()) as client:
            client.sendmail("a@example.com", "b@example.com", "Subject: hello\n\n")
        assert mail.received[0].mail_from == "a@example.com"
    with TCPServer(handler=lambda connection: connection.recv(5), tls=True) as tcp:
        with connect(tcp) as stream:
            stream.sendall(b"hello")
            assert stream.recv(5) == b"hello"


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
def test_the_host_that_it_listens_on_is_in_its_certificate(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with HTTPServer((host, 0), tls=True) as server:
        get(server)


def test_a_unix_socket(tmp_path: Path) -> None:
    with HTTPServer(tmp_path / "sock", tls=True) as server:
        assert server.url.startswith("https+unix://")
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(server.server_address)
        with server.client_context().wrap_socket(connection, server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"


def test_another_program_trusts_it_by_its_environment() -> None:
    with HTTPServer(handler=lambda request: "hello", tls=True) as server:
        assert server.client_env() == dict.fromkeys(
            ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"],
            server.ca_file,
        )
        url = server.url
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import urllib.request as u; print(u.urlopen({url!r}).read())",
            ],
            env={**os.environ, **server.client_env()},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout == "b'hello'\n", done.stderr


def test_a_context_of_a_client_trusts_this_server_and_nobody_else() -> None:
    context = HTTPServer(tls=True).client_context()
    assert [ca["subject"][0] for ca in context.get_ca_certs()] == [
        (("organizationName", "Sidestage tests"),)
    ]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_context_of_a_client_is_as_python_makes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    server = HTTPServer(tls=True)
    context, usual = server.client_context(), ssl.create_default_context(cafile=server.ca_file)
    usual.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for name in (
        *("verify_flags", "verify_mode", "check_hostname", "options", "protocol"),
        *("minimum_version", "maximum_version", "keylog_filename"),
    ):
        assert getattr(context, name) == getattr(usual, name), name
    assert context.get_ca_certs() == usual.get_ca_certs()


def test_a_context_of_a_client_may_be_what_all_contexts_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HTTPServer(tls=True) as server:
        monkeypatch.setattr(ssl, "create_default_context", lambda: server.client_context())
        get(server, ssl.create_default_context())


@pytest.mark.parametrize("kind, scheme", SCHEMES)
def test_a_plain_server_says_what_to_write(kind: type[Any], scheme: str) -> None:
    for ask in (
        lambda server: server.ca_file,
        lambda server: server.client_context(),
        lambda server: server.client_env(),
    ):
        with pytest.raises(StateError, match=rf"speaks none: make it by {kind.__name__}\(tls=True"):
            ask(kind(tls=False))


def test_a_plain_fixture_says_how_its_test_is_marked(http_server: HTTPServer) -> None:
    with pytest.raises(StateError, match=r'mark\.sidestage\(http_server=\{"tls": True\}\)'):
        http_server.client_context()


def test_plain_values_of_the_option() -> None:
    assert HTTPServer().tls is HTTPServer(tls=False).tls is HTTPServer(tls=None).tls is None
    tls = TLS(hosts="a.example")
    assert HTTPServer(tls=tls).tls is tls
    assert isinstance(HTTPServer(tls=True).tls, TLS)


@pytest.mark.parametrize("value", ["yes", 1, {}, TLS])
def test_anything_else_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"tls must be True, or TLS\(\.\.\.\), or None for none"):
        HTTPServer(tls=value)


def test_a_kind_that_was_not_called_is_an_error_that_says_so() -> None:
    with pytest.raises(TypeError, match="call it, with parentheses"):
        HTTPServer(tls=TLS.expired)  # type: ignore[arg-type]


def test_a_context_is_an_error_that_says_what_to_pass() -> None:
    with pytest.raises(TypeError, match=r"TLS\(cert=\.\.\., key=\.\.\.\)"):
        HTTPServer(tls=ssl.create_default_context())  # type: ignore[arg-type]


def test_it_is_fixed_while_the_server_runs() -> None:
    with HTTPServer() as server:
        with pytest.raises(StateError, match="tls cannot change while"):
            server.tls = True  # type: ignore[assignment]
    server.tls = TLS()
    with server:
        assert server.url.startswith("https:")
        get(server)
    server.tls = None
    with server:
        assert server.url.startswith("http:")
        assert urllib.request.urlopen(server.url).status == 200


def test_a_restart_shows_the_same_authority_on_the_same_port() -> None:
    with HTTPServer(tls=True) as server:
        context, url = server.client_context(), server.url
        server.restart()
        assert server.url == url
        get(server, context)


def test_a_udp_server_says_that_it_speaks_none() -> None:
    for value in (True, TLS(), "x"):
        with pytest.raises(TypeError, match="a UDPServer speaks no TLS, which needs a stream"):
            UDPServer(tls=value)  # type: ignore[arg-type]
    UDPServer(tls=False)
    assert not hasattr(UDPServer(), "ca_file")


def test_processes_are_used_again_with_and_without_tls() -> None:
    """What has served with TLS serves plainly then, and the other way round."""
    pool.close()  # so that there is only one to choose
    pids = []
    for tls in (True, None, TLS.expired(), True):
        with HTTPServer(tls=tls) as server:
            pids.append(server.pid)
            if tls is True:
                get(server)
            elif tls is None:
                assert urllib.request.urlopen(server.url).status == 200
            else:
                with pytest.raises(urllib.error.URLError, match="certificate has expired"):
                    get(server)
    assert len(set(pids)) == 1


# TLS(...) ----------------------------------------------------------------------------------------


def test_a_certificate_of_ones_own() -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    tls = TLS(
        cert=leaf.cert_chain_pems[0].bytes(),
        key=leaf.private_key_pem.bytes(),
        ca=authority.cert_pem.bytes(),
    )
    with HTTPServer(tls=tls) as server:
        get(server)
        assert Path(server.ca_file).read_bytes() == authority.cert_pem.bytes()


def test_a_certificate_of_ones_own_is_trusted_itself_where_its_authority_is_not_given() -> None:
    leaf = trustme.CA().issue_cert("127.0.0.1")
    tls = TLS(cert=leaf.cert_chain_pems[0].bytes(), key=leaf.private_key_pem.bytes())
    with HTTPServer(tls=tls) as server:
        get(server)


def test_a_certificate_for_each_host_that_is_asked_for() -> None:
    with HTTPServer(tls=TLS(hosts="*")) as server:  # no handler: nobody reads but for this
        for host in ("api.stripe.example", "localhost", "a.b.c.example", "api.stripe.example"):
            with connect(server, host) as client:
                assert client.getpeercert()["subjectAltName"] == (("DNS", host),)
        get(server)  # by its address


def test_a_host_that_no_certificate_can_name_disturbs_no_other() -> None:
    with HTTPServer(tls=TLS(hosts="*")) as server:
        with pytest.raises(ssl.SSLError):
            connect(server, f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}.e")
        with connect(server, "other.example") as client:
            assert client.version()


@pytest.mark.parametrize("auth", ["required", "optional"])
def test_a_client_shows_a_certificate(auth: Any) -> None:
    tls = TLS(client_auth=auth)
    with HTTPServer(tls=tls) as server:
        context = server.client_context()
        context.load_cert_chain(*tls.client_certificate("alice"))
        get(server, context)
        shown = server.received[0].tls
        assert shown is not None
        assert shown.client_certificate is not None
        assert shown.client_certificate.common_name == "alice"


def test_a_client_without_one() -> None:
    with HTTPServer(tls=TLS(client_auth="optional")) as server:
        get(server)
        assert server.received[0].tls.client_certificate is None  # type: ignore[union-attr]
    with HTTPServer(tls=TLS(client_auth="required")) as server:
        with pytest.raises(OSError, match=r"(?i)certificate.required|reset|EOF"):
            get(server)
        assert "client_certificate" in server.diagnostics[0].text


def test_the_protocol_is_chosen_among_those_of_the_server() -> None:
    with HTTPServer(tls=True) as server, TCPServer(tls=True) as plain:
        for one, chosen in ((server, "http/1.1"), (plain, None)):
            context = one.client_context()
            context.set_alpn_protocols(["h2", "http/1.1"])
            connection = socket.create_connection((one.host, one.port), timeout=10)
            with context.wrap_socket(connection, server_hostname="localhost") as client:
                assert client.selected_alpn_protocol() == chosen


def test_the_version_and_the_ciphers_are_as_asked() -> None:
    with HTTPServer(tls=TLS(minimum_version="TLSv1.3")) as server:
        context = server.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r"(?i)protocol.version"):
            get(server, context)
    with HTTPServer(tls=TLS(ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")) as server:
        context = server.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        get(server, context)
        assert server.received[0].tls.cipher == "ECDHE-ECDSA-CHACHA20-POLY1305"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make, message",
    [
        (TLS.expired, "certificate has expired"),
        (TLS.not_yet_valid, "certificate is not yet valid"),
        (TLS.wrong_host, "IP address mismatch"),
        (TLS.self_signed, "self-signed certificate"),
        (TLS.untrusted, "self-signed certificate in certificate chain"),
        (TLS.wrong_chain, "unable to get local issuer certificate"),
        (TLS.weak_key, "EE certificate key too weak"),
        (TLS.old_version, "(?i)protocol.version|unsupported.protocol"),
        (TLS.fails, "(?i)handshake.failure"),
        (TLS.cut, "(?i)EOF|reset"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_clients_must_refuse(make: Callable[[], TLS], message: str) -> None:
    with HTTPServer(tls=make()) as server:
        context = server.client_context()
        context.set_ciphers("DEFAULT:@SECLEVEL=2")
        with pytest.raises(OSError, match=message):
            get(server, context)
        assert not server.received


def test_a_handshake_that_stalls() -> None:
    with HTTPServer(tls=TLS.stalls()) as server:
        with socket.create_connection((server.host, server.port), timeout=0.2) as connection:
            with pytest.raises(TimeoutError):
                server.client_context().wrap_socket(connection, server_hostname="localhost")


# Where options are taken -------------------------------------------------------------------------


def test_the_classic_servers_have_their_own_context_still() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def answer(request: Any) -> None:
        request.send_response(204)
        request.end_headers()

    client = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with classic.TestHTTPServer(("127.0.0.1", 0), answer, sslctx=context) as server:
        assert server.url.startswith("https:")
        assert urllib.request.urlopen(server.url, context=client).status == 204
