"""What handlers and records tell of TLS, on real connections."""

from __future__ import annotations

import smtplib
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from kit.scripts import run_script
from sidestage import TLS, ClientCertificate, HTTPServer, SMTPServer, TCPServer, TLSDetails
from sidestage.journal.secured import details
from sidestage.reports.text import over
from sidestage.wire.messages import Seen


def connect(server: Any, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    context = context or server.client_context()
    connection = socket.create_connection((server.host, server.port), timeout=10)
    return context.wrap_socket(connection, server_hostname="localhost")


def test_a_request_tells_what_was_agreed() -> None:
    seen: list[TLSDetails | None] = []
    with HTTPServer(handler=lambda request: seen.append(request.tls), tls=True) as server:
        context = server.client_context()
        context.set_alpn_protocols(["http/1.1"])
        with connect(server, context) as client:
            cipher = client.cipher()
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.recv(100)
    assert cipher is not None
    assert seen == [TLSDetails("TLSv1.3", cipher[0], "localhost", "http/1.1", None)]
    assert server.received[0].tls == seen[0]


def test_without_tls_there_is_nothing_to_tell() -> None:
    with HTTPServer(handler=lambda request: str(request.tls)) as server:
        assert urllib.request.urlopen(server.url).read() == b"None"


def test_a_client_that_asks_for_an_address_names_no_host() -> None:
    with HTTPServer(tls=TLS(minimum_version="TLSv1.2")) as server:
        context = server.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        urllib.request.urlopen(server.url, context=context).close()
        tls = server.received[0].tls
    assert tls is not None
    assert (tls.version, tls.sni) == ("TLSv1.2", None)


def test_a_connection_and_its_transcript() -> None:
    seen: list[TLSDetails | None] = []
    with TCPServer(handler=lambda connection: seen.append(connection.tls), tls=True) as server:
        with connect(server) as client:
            client.recv(1)
        server.wait_for(1)
        server.handler = None
        with connect(server) as client:
            client.sendall(b"x")
        server.wait_for(2)
    assert seen[0] is not None
    assert seen[0].sni == "localhost"
    assert [one.tls for one in server.received] == [seen[0], seen[0]]


def test_a_mail() -> None:
    with SMTPServer(handler=lambda mail: f"250 {mail.tls.version}", tls=True) as server:
        with smtplib.SMTP_SSL(server.host, server.port, context=server.client_context()) as client:
            client.sendmail("a@example.com", "b@example.com", "hello")
        assert server.received[0].tls is not None
    with SMTPServer() as plain:
        with smtplib.SMTP(plain.host, plain.port) as client:
            client.sendmail("a@example.com", "b@example.com", "hello")
        assert plain.received[0].tls is None


def test_a_certificate_of_a_client() -> None:
    tls = TLS(client_auth="required")
    pem = Path(tls.client_certificate("alice")[0]).read_text()
    made = ClientCertificate(ssl.PEM_cert_to_DER_cert(pem))
    assert made.common_name == "alice"
    assert made.subject == "CN=alice,O=Sidestage tests"
    assert made.pem == pem
    assert made == ClientCertificate(made.der)
    assert {made: 1}[ClientCertificate(made.der)] == 1
    assert made != ClientCertificate(b"x")
    assert repr(made) == "<ClientCertificate of 'alice'>"
    assert repr(ClientCertificate(b"x")) == "<ClientCertificate of 1 bytes>"


def test_a_report_tells_of_it_in_the_line_of_what_was_asked() -> None:
    tls = TLS(client_auth="optional")
    with HTTPServer(tls=tls) as server, TCPServer(tls=True) as tcp, SMTPServer(tls=True) as mail:
        context = server.client_context()
        context.load_cert_chain(*tls.client_certificate("alice"))
        urllib.request.urlopen(f"{server.url}/x", context=context).close()
        with connect(tcp) as client:
            client.sendall(b"x")
        tcp.wait_for(1)
        with smtplib.SMTP_SSL(mail.host, mail.port, context=mail.client_context()) as sender:
            sender.sendmail("a@example.com", "b@example.com", "hello")
        assert "GET /x over TLSv1.3 as 'alice' -> 200" in server.explain()
        assert "connection over TLSv1.3 for localhost that sent 1 byte" in tcp.explain()
        assert "to 'b@example.com', 7 bytes over TLSv1.3" in mail.explain()


def test_a_report_shows_no_controls_of_a_terminal() -> None:
    shown = over(details(Seen("TLSv1.3", "x", "a\x1b[2J", None, b"y")))
    assert shown == " over TLSv1.3 for a\\x1b[2J as 1 bytes"
    assert over(None) == ""


def test_a_certificate_counts_among_what_is_kept() -> None:
    tls = TLS(client_auth="required")
    with HTTPServer(tls=tls, keep=2000) as server:
        context = server.client_context()
        context.load_cert_chain(*tls.client_certificate("alice"))
        for _ in range(4):
            urllib.request.urlopen(server.url, context=context).close()
        kept = len(server.received)
    with HTTPServer(tls=True, keep=2000) as server:
        for _ in range(4):
            urllib.request.urlopen(server.url, context=server.client_context()).close()
        assert len(server.received) > kept


def test_without_the_extra_the_certificate_itself_is_there() -> None:
    printed = run_script(
        """
        import sys
        sys.modules["cryptography"] = None
        from sidestage import ClientCertificate
        made = ClientCertificate(b"der")
        print(repr(made), made.der)
        try:
            made.common_name
        except ImportError as error:
            print(error)
        """
    )
    assert "<ClientCertificate of 3 bytes> b'der'" in printed
    assert "pip install 'sidestage[tls]'" in printed
