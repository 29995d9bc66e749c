"""Handshakes that fail, and what the test is told of them, without sockets."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trustme

from kit.certificates import authority, client_context, leaf
from kit.tls_child import Client, Server
from sidestage.child.net.listener import wire_address
from sidestage.layers.tls.messages import Certificate, CertificateWanted

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def refused(client: Client, match: str) -> None:
    """The client's handshake fails as ``match`` says, and its protocol hears nothing of it."""
    with pytest.raises(ssl.SSLError, match=match):
        client.handshake()
    client.pull()
    assert client.receiver.calls == []
    client.layer.connection_lost(None)


def authenticated(ca: trustme.CA) -> ssl.SSLContext:
    """A client's context with a certificate of ``ca``."""
    context = client_context()
    ca.issue_cert("alice@example.org").configure_cert(context)
    return context


class TestCertificate:
    @pytest.mark.parametrize("version", [V12, V13])
    def test_a_client_that_does_not_trust_it_is_told_how(self, version: ssl.TLSVersion) -> None:
        server = Server()
        context = ssl.create_default_context()
        context.maximum_version = version
        refused(server.connect(context), "CERTIFICATE_VERIFY_FAILED")
        (told,) = server.told
        assert told.startswith("the TLS handshake failed with a client that asked for 'localhost'")
        assert "does not trust" in told
        assert "server.ca_file" in told
        assert "unknown_ca" in told

    def test_one_for_another_host_is_refused_by_the_client(self) -> None:
        server = Server()
        refused(server.connect(host="shop.example"), "Hostname mismatch")
        assert "'shop.example'" in server.told[0]
        assert "another host" in server.told[0]
        assert "TLS(hosts='shop.example')" in server.told[0]

    def test_a_client_that_leaves_without_a_word_may_not_trust_it(self) -> None:
        server = Server()
        client = server.connect()
        client.feed(client.hello())
        assert not client.layer.eof_received()
        assert "after it got the certificate" in server.told[0]
        assert "have it trust server.ca_file" in server.told[0]
        client.layer.connection_lost(None)
        assert len(server.told) == 1

    def test_so_may_one_that_resets(self) -> None:
        server = Server()
        client = server.connect()
        client.feed(client.hello())
        client.layer.connection_lost(ConnectionResetError())
        assert "reset the connection in the TLS handshake" in server.told[0]


class TestAgreement:
    def test_no_version_is_shared(self) -> None:
        server = Server(minimum_version="TLSv1_3")
        refused(server.connect(client_context(maximum_version=V12)), "ALERT_PROTOCOL_VERSION")
        assert "have no version of TLS in common: the client offers TLSv1.2" in server.told[0]
        assert "at least TLSv1.3" in server.told[0]

    def test_the_client_takes_no_version_of_the_server(self) -> None:
        server = Server(maximum_version="TLSv1_2")
        refused(server.connect(client_context(minimum_version=V13)), "ALERT_PROTOCOL_VERSION")
        assert "the client offers TLSv1.3, the server takes at most TLSv1.2" in server.told[0]

    def test_old_versions_are_taken_where_they_are_asked_for(self) -> None:
        server = Server(maximum_version="TLSv1_1", legacy=True)
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context = client_context(minimum_version=ssl.TLSVersion.TLSv1)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        client = server.connect(context).handshake()
        assert client.receiver.transport.get_extra_info("tls").version == "TLSv1.1"

    def test_the_server_has_no_cipher_for_its_own_versions(self) -> None:
        server = Server(ciphers="ECDHE+AESGCM", maximum_version="TLSv1_1", legacy=True)
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context = client_context(minimum_version=ssl.TLSVersion.TLSv1)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        refused(server.connect(context), "HANDSHAKE_FAILURE")
        assert "none of the server's ciphers (ciphers='ECDHE+AESGCM')" in server.told[0]
        assert "of a version of TLS that it takes (at most TLSv1.1)" in server.told[0]

    def test_no_cipher_is_shared(self) -> None:
        server = Server(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384", maximum_version="TLSv1_2")
        context = client_context()
        context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
        refused(server.connect(context), "HANDSHAKE_FAILURE")
        ciphers = "(ciphers='ECDHE-ECDSA-AES256-GCM-SHA384')"
        assert f"client and server have no cipher in common {ciphers}" in server.told[0]


class TestClientCertificate:
    def ask(self, auth: str) -> Server:
        return Server(client_auth=auth, client_ca=authority().cert_pem.bytes())

    @pytest.mark.parametrize("auth", ["optional", "required"])
    def test_is_seen(self, auth: str) -> None:
        client = self.ask(auth).connect(authenticated(authority())).handshake()
        seen = client.receiver.transport.get_extra_info("tls")
        assert b"alice@example.org" in seen.client_certificate

    def test_may_be_left_out_where_it_is_optional(self) -> None:
        client = self.ask("optional").connect().handshake()
        assert client.receiver.transport.get_extra_info("tls").client_certificate is None

    @pytest.mark.parametrize("version", [V12, V13])
    def test_is_missed_where_it_is_required(self, version: ssl.TLSVersion) -> None:
        server = self.ask("required")
        client = server.connect(client_context(maximum_version=version))
        with pytest.raises(ssl.SSLError, match="ALERT"):
            client.handshake()
            client.read()
        assert client.receiver.calls == []
        assert "the client sent no certificate, and the server requires one" in server.told[0]

    def test_of_a_stranger_is_refused(self) -> None:
        server = self.ask("optional")
        client = server.connect(authenticated(trustme.CA()))
        with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
            client.handshake()
            client.read()
        assert "the certificate of the client is refused (" in server.told[0]


class TestOnPurpose:
    def test_it_fails(self) -> None:
        server = Server(handshake="fails")
        refused(server.connect(host="shop.example"), "ALERT_HANDSHAKE_FAILURE")
        assert server.told == [
            "failed the TLS handshake on purpose with a client that asked for 'shop.example'"
        ]

    def test_it_is_cut(self) -> None:
        server = Server(handshake="cut")
        refused(server.connect(), "EOF")
        assert server.told[0].startswith("cut the TLS handshake on purpose")

    def test_it_stalls_until_the_client_leaves(self) -> None:
        server = Server(handshake="stalls")
        client = server.connect()
        client.feed(client.hello())
        server.loop.fire()
        client.feed(b"x" * 100)
        assert client.below.take() == b""
        assert not client.below.closed
        assert server.service.describe()[0][0].state == "stalled on purpose in the TLS handshake"
        assert not client.layer.eof_received()
        client.layer.connection_lost(None)
        assert len(server.told) == 1
        assert not server.service.peers


class TestNoTLS:
    @pytest.mark.parametrize("piece", [1, 100])
    def test_a_client_that_speaks_plain_text_is_named(self, piece: int) -> None:
        server = Server()
        client = server.connect()
        client.feed(b"EHLO me\r\n", piece)
        assert client.below.lingering
        assert client.below.out == b""
        (told,) = server.told
        assert told.startswith("a client spoke to this server without TLS, beginning with b'E")

    @pytest.mark.parametrize("piece", [1, 100])
    def test_an_alert_in_place_of_a_client_hello_is_named_and_not_answered(
        self, piece: int
    ) -> None:
        server = Server()
        client = server.connect()
        client.feed(b"\x15\3\3\0\2\2\x28", piece)
        assert client.below.lingering
        assert client.below.out == b""
        (told,) = server.told
        assert told.startswith("the client is refused: it began with the TLS alert handshake_fail")

    def test_sslv2_gets_an_alert(self) -> None:
        server = Server()
        client = server.connect()
        client.feed(b"\x80\x2e\1\0\2" + bytes(43))
        assert client.below.out == b"\x15\3\3\0\2\2\x46"
        assert "the form of SSLv2: have it use TLS 1.2" in server.told[0]

    def test_a_look_if_the_port_is_open_is_no_news(self) -> None:
        server = Server()
        for end in (lambda c: c.layer.eof_received(), lambda c: None):
            client = server.connect()
            end(client)
            client.layer.connection_lost(None)
        reset = server.connect()
        reset.layer.connection_lost(ConnectionResetError())
        assert server.told == []
        assert not server.service.peers

    def test_a_client_that_leaves_in_its_first_message_is_named(self) -> None:
        server = Server()
        client = server.connect()
        client.feed(client.hello()[:30])
        assert not client.layer.eof_received()
        assert server.told == ["the client closed the connection in the middle of its ClientHello"]

    def test_one_that_says_nothing_has_its_time(self) -> None:
        server = Server(seconds=2.5)
        client = server.connect()
        server.loop.fire()
        assert client.below.lingering
        assert "sent nothing within 2.5 s, and a client of TLS speaks first" in server.told[0]

    def test_one_that_waits_for_the_server_is_told_of_when_it_leaves(self) -> None:
        server = Server()
        client = server.connect()
        server.loop.now += 1.5
        assert not client.layer.eof_received()
        client.layer.connection_lost(None)
        (told,) = server.told
        assert (
            "closed the connection and had sent nothing, and a client of TLS speaks first" in told
        )

    def test_so_has_one_that_does_not_go_on(self) -> None:
        server = Server()
        client = server.connect()
        client.feed(client.hello()[:30])
        server.loop.fire()
        assert client.below.lingering
        assert server.told[0].startswith("the TLS handshake was not over within 10 s: the client")
        assert server.told[0].endswith("has sent a part of its ClientHello")

    def test_so_has_one_that_does_not_answer_the_certificate(self) -> None:
        server = Server()
        client = server.connect(host="shop.example")
        client.feed(client.hello())
        server.loop.fire()
        assert client.below.lingering
        (told,) = server.told
        assert told == (
            "the TLS handshake was not over within 10 s with a client that asked for "
            "'shop.example': it has not answered the certificate"
        )

    def test_a_client_hello_without_end_is_refused(self) -> None:
        server = Server()
        client = server.connect()
        record = b"\x16\x03\x01\x40\x00"
        client.feed(record + b"\1\xff\xff\xff" + bytes(100_000), 100)
        assert client.below.lingering
        assert client.below.out == b"\x15\x03\x03\x00\x02\x02\x32"  # decode_error
        assert "larger than 65,536 bytes" in server.told[0]

    def test_nothing_is_made_for_a_client_before_its_message_is_whole(self) -> None:
        client = Server().connect()
        client.feed(client.hello()[:-1])
        handshake = client.layer._handshake
        assert handshake is not None
        assert handshake._session is None


class TestAnyHost:
    def answer(self, server: Server, **given: Any) -> list[str]:
        """Answer all questions; returns the hosts."""
        wanted = server.outbox.of(CertificateWanted)
        server.outbox.sent.clear()
        for message in wanted:
            made = leaf(message.host)
            fields = {"certificate": made.certificate, "key": made.key, **given}
            server.service.command(Certificate(token=message.token, **fields))
        return [message.host for message in wanted]

    def test_a_host_gets_its_certificate_which_is_kept(self) -> None:
        server = Server(any_host=True)
        for host in ("shop.example", "Shop.Example"):
            client = server.connect(host=host)
            client.feed(client.hello())
            if host == "shop.example":
                assert not client.below.reading
                assert "waits for a certificate" in server.service.describe()[0][0].state
            assert self.answer(server) == (["shop.example"] if host == "shop.example" else [])
            assert client.below.reading
            client.handshake()
            assert client.receiver.transport.get_extra_info("tls").sni == host
        assert server.told == []

    def test_several_clients_wait_for_one_answer(self) -> None:
        server = Server(any_host=True)
        clients = [server.connect(host="a.example") for _ in range(3)]
        for client in clients:
            client.feed(client.hello())
        clients[0].layer.connection_lost(ConnectionResetError())
        assert self.answer(server) == ["a.example"]
        for client in clients[1:]:
            client.handshake()
        assert clients[0].receiver.calls == []

    def test_without_a_host_the_default_is_given(self) -> None:
        server = Server(any_host=True)
        server.connect(host="127.0.0.1").handshake()
        assert server.outbox.of(CertificateWanted) == []

    @pytest.mark.parametrize("sni", ["a..b", "x" * 300, "a b", "*.example", "\u00e4"])
    def test_what_is_no_host_is_not_asked_for(self, sni: str) -> None:
        server = Server(any_host=True)
        client = server.connect()
        handshake: Any = client.layer._handshake
        assert server.tls.context_for(handshake, sni) is server.tls._context
        assert server.outbox.of(CertificateWanted) == []

    def test_where_there_is_no_certificate_the_client_is_told(self) -> None:
        server = Server(any_host=True)
        client = server.connect(host="a.example")
        client.feed(client.hello())
        self.answer(server, certificate=b"", error="no, not that one")
        refused(client, "UNRECOGNIZED_NAME")
        assert server.told == [
            "there is no certificate for a client that asked for 'a.example': no, not that one"
        ]

    def test_one_that_cannot_be_used_is_none(self) -> None:
        server = Server(any_host=True)
        client = server.connect(host="a.example")
        client.feed(client.hello())
        self.answer(server, key=b"nonsense")
        refused(client, "UNRECOGNIZED_NAME")
        assert "the certificate and its key of TLS cannot be used" in server.told[0]

    def test_the_time_of_a_handshake_holds_while_it_waits(self) -> None:
        server = Server(any_host=True)
        client = server.connect(host="a.example")
        client.feed(client.hello())
        server.loop.fire()
        assert client.below.lingering
        assert "waits for a certificate for 'a.example'" in server.told[0]
        assert self.answer(server) == ["a.example"]
        assert client.below.out == b""

    def test_an_answer_nobody_waits_for_is_dropped(self) -> None:
        server = Server(any_host=True)
        server.service.command(Certificate(token=99, certificate=b"", key=b""))


def test_diagnostics_name_the_client() -> None:
    server = Server()
    server.connect().feed(b"GET / HTTP/1.1\r\n\r\n")
    (message,) = server.outbox.sent
    assert (message.peer, message.connection) == (wire_address(("127.0.0.1", 1)), 7)
