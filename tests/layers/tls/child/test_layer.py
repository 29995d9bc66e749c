"""The layer of TLS once the handshake is done, without sockets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from kit.certificates import client_context
from kit.tls_child import Client, Server
from sidestage.child.net.stream import HIGH_WATER

MUCH = bytes(range(256)) * 4096  # 1 MiB
OLD = {"maximum_version": ssl.TLSVersion.TLSv1_2}


@pytest.fixture
def server() -> Server:
    return Server(alpn=("http/1.1",))


@pytest.fixture(params=["TLSv1.3", "TLSv1.2"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    context = client_context(**(OLD if request.param == "TLSv1.2" else {}))
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = server.connect(context).handshake()
    yield client
    assert not server.service.peers
    assert not any(not timer.cancelled for timer in server.loop.timers)


class TestHandshake:
    def test_the_protocol_gets_the_connection_when_it_is_done(self, server: Server) -> None:
        client = server.connect()
        hello = client.hello()
        client.feed(hello)
        assert client.receiver.calls == []
        assert client.handshake().receiver.calls == ["made"]
        client.send(b"hello")
        assert client.receiver.data == b"hello"

    @pytest.mark.parametrize("piece", [1, 3, 100])
    def test_it_is_the_same_however_its_bytes_come(self, server: Server, piece: int) -> None:
        client = server.connect().handshake(piece)
        client.send(MUCH[:1000], piece)
        assert client.receiver.data == MUCH[:1000]

    def test_what_comes_with_its_last_bytes_is_not_lost(self, server: Server) -> None:
        client = server.connect()
        client.feed(client.hello())
        client.pull()
        client.tls.do_handshake()
        client.send(b"at once")
        assert client.receiver.calls == ["made"]
        assert client.receiver.data == b"at once"

    def test_tells_what_was_agreed(self, client: Client) -> None:
        seen = client.receiver.transport.get_extra_info("tls")
        assert seen.version == client.tls.version()
        cipher = client.tls.cipher()
        assert cipher is not None
        assert seen.cipher == cipher[0]
        assert (seen.sni, seen.alpn) == ("localhost", "http/1.1")
        assert seen.client_certificate is None
        assert client.receiver.transport.get_extra_info("peername") == ("127.0.0.1", 1)

    def test_is_a_connection_of_the_service_while_it_lasts(self, server: Server) -> None:
        client = server.connect(host="localhost")
        (shown,), _ = server.service.describe()
        assert shown.state == "connected, has sent nothing yet"
        assert shown.number == 7
        hello = client.hello()
        client.feed(hello[:20])
        assert server.service.describe()[0][0].state == "has sent a part of its ClientHello"
        client.feed(hello[20:])
        assert server.service.describe()[0][0].state == (
            "in the TLS handshake with a client that asked for 'localhost'"
        )
        client.handshake()
        assert server.service.describe() == ([], 0)

    def test_a_protocol_that_fails_at_its_beginning_leaves_nothing(self, server: Server) -> None:
        def fail() -> None:
            raise LookupError

        client = server.connect()
        client.receiver.begin = fail
        with pytest.raises(LookupError):  # the stream reports it, and closes the connection
            client.handshake()
        assert not server.service.peers

    def test_a_stop_ends_it(self, server: Server) -> None:
        client = server.connect()
        client.feed(client.hello()[:50])
        (peer,) = server.service.peers
        peer.close_if_idle()
        assert client.below.closed
        client.layer.connection_lost(None)
        assert not server.service.peers
        assert server.told == []
        assert client.receiver.calls == []


class TestReading:
    def test_much_comes_whole_in_few_pieces(self, client: Client) -> None:
        client.send(MUCH)
        assert client.receiver.data == MUCH
        assert len(client.receiver.pieces) == 5  # what the stream gives: a quarter of a MiB each

    def test_so_it_does_in_many_small_records(self, client: Client) -> None:
        for number in range(1000):
            client.tls.write(b"%d " % number)
        client.flush()
        assert client.receiver.data == b"".join(b"%d " % number for number in range(1000))
        assert len(client.receiver.pieces) == 1

    def test_a_record_may_come_byte_by_byte(self, client: Client) -> None:
        client.send(b"slowly", 1)
        assert client.receiver.data == b"slowly"
        assert client.receiver.pieces == [6]

    def test_pauses_reach_the_stream(self, client: Client) -> None:
        client.receiver.transport.pause_reading()
        assert not client.below.reading
        client.receiver.transport.resume_reading()
        assert client.below.reading

    def test_the_end_waits_while_the_protocol_does_not_read(
        self, server: Server, client: Client
    ) -> None:
        """It may have taken a part of what came before the end."""
        client.receiver.keeps_open = True
        client.receiver.react = client.receiver.transport.pause_reading
        client.tls.write(b"much")
        client.end()
        assert client.receiver.calls == ["made"]
        client.receiver.transport.resume_reading()
        client.receiver.transport.pause_reading()
        server.loop.fire()
        assert client.receiver.calls == ["made"]
        client.receiver.transport.resume_reading()
        server.loop.fire()
        assert client.receiver.calls == ["made", "eof"]

    def test_a_protocol_that_closes_gets_no_more(self, client: Client) -> None:
        client.receiver.react = lambda: client.receiver.transport.close()
        client.tls.write(b"first")
        client.end()
        assert client.receiver.data == b"first"
        assert "eof" not in client.receiver.calls

    def test_a_client_that_does_not_read_what_it_is_answered_is_not_read(
        self, client: Client
    ) -> None:
        """OpenSSL answers by itself, as where a client asks for new keys again and again."""
        client.receiver.react = lambda: client.layer._outgoing.write(b"an answer")
        client.send(b"small")
        assert client.below.reading
        client.below.unsent = HIGH_WATER + 1
        client.send(b"much")
        assert not client.below.reading
        client.receiver.transport.resume_reading()
        assert not client.below.reading
        client.receiver.transport.pause_reading()
        client.layer.resume_writing()
        assert not client.below.reading  # the protocol does not want it either
        client.receiver.transport.resume_reading()
        assert client.below.reading


class TestWriting:
    def test_small_pieces_are_passed_on_at_once(self, client: Client) -> None:
        client.receiver.transport.write(b"a")
        client.receiver.transport.writelines([b"b", b"c"])
        assert client.read() == b"abc"

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_much_is_written_in_few_pieces(self, client: Client, kind: Any) -> None:
        before = client.below.writes
        client.receiver.transport.write(kind(MUCH))
        assert client.below.writes - before <= 4
        assert client.read() == MUCH

    @pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 65_536, 262_144, 300_000])
    def test_no_size_is_special(self, client: Client, size: int) -> None:
        client.receiver.transport.write(MUCH[:size])
        assert client.read() == MUCH[:size]

    def test_a_client_that_does_not_read_holds_the_protocol_back(self, client: Client) -> None:
        client.layer.pause_writing()
        client.layer.resume_writing()
        assert client.receiver.calls == ["made", "pause", "resume"]
        client.below.unsent = 5
        assert client.receiver.transport.get_write_buffer_size() == 5


class TestEnd:
    def test_a_close_says_so(self, client: Client) -> None:
        client.receiver.transport.write(b"last")
        client.receiver.transport.close()
        assert client.below.closed
        assert client.read() == b"last"
        assert client.has_ended()

    def test_so_does_one_that_lingers(self, client: Client) -> None:
        client.receiver.transport.close_lingering()
        assert client.below.lingering
        assert client.has_ended()

    def test_an_abort_and_a_reset_do_not(self, client: Client) -> None:
        client.receiver.transport.reset()
        assert client.below.was_reset
        with pytest.raises(ssl.SSLEOFError):
            client.has_ended()

    def test_a_reset_once_all_is_sent_does_not_either(self, client: Client) -> None:
        client.receiver.transport.write(b"all")
        client.receiver.transport.reset_when_sent()
        assert client.read() == b"all"
        with pytest.raises(ssl.SSLEOFError):
            client.has_ended()

    def test_after_its_end_the_client_can_be_answered(self, client: Client) -> None:
        client.receiver.keeps_open = True
        client.tls.write(b"question")
        client.end()
        assert client.receiver.data == b"question"
        assert client.receiver.calls == ["made", "eof"]
        assert not client.below.closed
        client.receiver.transport.write(b"answer")
        assert client.read() == b"answer"
        assert client.layer.eof_received()  # the FIN behind it changes nothing
        assert client.receiver.calls == ["made", "eof"]
        client.receiver.transport.close()
        assert client.below.closed

    def test_its_end_closes_what_does_not_want_to_answer(self, client: Client) -> None:
        client.end()
        assert client.receiver.calls == ["made", "eof"]
        assert client.below.closed
        assert client.has_ended()

    def test_a_fin_without_close_notify_is_an_end_too(self, client: Client, server: Server) -> None:
        assert not client.layer.eof_received()
        assert client.receiver.calls == ["made", "eof"]
        assert client.below.closed
        assert server.told == []

    @pytest.mark.parametrize("how", ["closed", "reset"])
    def test_one_that_had_sent_nothing_where_clients_begin_is_told_of(
        self, client: Client, server: Server, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some verify the certificate after the handshake, and leave without an alert."""
        monkeypatch.setattr(type(server.service), "clients_begin", True)
        if how == "closed":
            client.layer.eof_received()
        client.layer.connection_lost(ConnectionResetError() if how == "reset" else None)
        (told,) = server.told
        assert told.startswith(f"the client {how} the connection after the TLS handshake")
        assert "perhaps it does not trust the certificate" in told

    @pytest.mark.parametrize("said", ["something", "goodbye"])
    def test_one_that_had_sent_something_is_not(
        self, client: Client, server: Server, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(server.service), "clients_begin", True)
        if said == "something":
            client.send(b"x")
            client.layer.eof_received()
        else:
            client.end()
        assert server.told == []

    def test_half_a_close_of_the_server_leaves_the_client_its_turn(self, client: Client) -> None:
        client.receiver.transport.write(b"all")
        client.receiver.transport.write_eof()
        assert client.below.half_closed
        assert client.read() == b"all"
        assert client.has_ended()
        client.send(b"thanks")
        assert client.receiver.data == b"thanks"
        client.end()
        assert client.receiver.calls == ["made", "eof"]
        assert client.below.closed

    def test_after_half_a_close_nothing_can_be_written(self, client: Client) -> None:
        client.receiver.transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            client.receiver.transport.write(b"more")
        client.receiver.transport.write_eof()
        client.receiver.transport.close()

    def test_half_a_close_loses_nothing_that_is_on_its_way(self, client: Client) -> None:
        client.receiver.react = lambda: client.receiver.transport.write_eof()
        client.tls.write(b"first ")
        client.tls.write(b"second ")
        client.flush()
        client.send(b"third")
        assert client.receiver.data == b"first second third"

    def test_nor_does_it_lose_a_record_of_which_a_part_has_come(self, client: Client) -> None:
        client.tls.write(b"cut in two")
        record = client.outgoing.read()
        client.feed(record[:20])
        client.receiver.transport.write_eof()
        client.feed(record[20:])
        assert client.receiver.data == b"cut in two"

    def test_the_protocol_hears_of_a_lost_connection(self, client: Client) -> None:
        error = ConnectionResetError()
        client.layer.connection_lost(error)
        assert client.receiver.calls == ["made", "lost"]
        assert client.receiver.error is error


class TestBrokenRecords:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x17\x03\x03\x00\x20" + bytes(32),
            b"\x17\x03\x03\xff\xff" + bytes(65535),
            b"GET / HTTP/1.1\r\n\r\n",
        ],
        ids=["forged", "oversized", "plain"],
    )
    def test_end_the_connection_with_an_alert(
        self, client: Client, server: Server, data: bytes
    ) -> None:
        client.send(b"good")
        client.feed(data)
        assert client.receiver.data == b"good"
        assert client.below.lingering
        assert len(server.told) == 1
        assert "a TLS record is refused" in server.told[0]
        with pytest.raises(ssl.SSLError, match="ALERT"):
            client.read()
        transport = client.receiver.transport
        assert transport.is_closing()
        transport.write(b"too late")
        client.layer.connection_lost(None)
        assert isinstance(client.receiver.error, ssl.SSLError)

    def test_of_the_server_are_told_by_the_alert_of_the_client(
        self, client: Client, server: Server
    ) -> None:
        client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            client.tls.read()
        client.feed(client.outgoing.read())
        (told,) = server.told
        assert told == "the client broke off the connection by the TLS alert bad_record_mac"

    @pytest.mark.parametrize("closes", [False, True])
    def test_are_told_of_though_what_came_with_them_is_answered(
        self, client: Client, server: Server, closes: bool
    ) -> None:
        """OpenSSL writes no more, so the client gets the alert in place of the answer."""

        def answer() -> None:
            client.receiver.transport.write(b"answer")
            if closes:
                client.receiver.transport.close()

        client.receiver.react = answer
        client.tls.write(b"good")
        client.feed(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        assert client.receiver.data == b"good"
        assert "a TLS record is refused" in server.told[0]
        with pytest.raises(ssl.SSLError, match="ALERT"):
            client.read()

    def test_disturb_no_other_connection(self, server: Server) -> None:
        good, bad = server.connect().handshake(), server.connect().handshake()
        bad.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
        good.send(b"still here")
        good.receiver.transport.write(b"so am I")
        assert good.receiver.data == b"still here"
        assert good.read() == b"so am I"

    def test_clients_cannot_renegotiate(self, server: Server) -> None:
        assert server.tls._context.options & ssl.OP_NO_RENEGOTIATION
        assert server.tls._context.options & ssl.OP_NO_COMPRESSION
