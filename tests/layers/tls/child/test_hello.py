"""Reading a ClientHello: no sockets, and no trust in what comes."""

from __future__ import annotations

import ssl

import pytest

from kit.tls_child import Server
from sidestage.layers.tls.child.hello import LIMIT, BadHello, Greeting, Hello, NotTLS, read


def hello(host: str | None = "Shop.example", **attributes: object) -> bytes:
    """A ClientHello as ``ssl`` makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, value in attributes.items():
        setattr(context, name, value)
    return Server().connect(context, host).hello()


def record(content: bytes, kind: int = 22) -> bytes:
    return bytes((kind, 3, 1)) + len(content).to_bytes(2) + content


def test_says_what_a_client_asks_for() -> None:
    assert Greeting().feed(hello()) == Hello(
        sni="Shop.example", alpn=("h2", "http/1.1"), versions=("TLSv1.3", "TLSv1.2")
    )


def test_knows_a_client_that_names_no_host_and_one_version() -> None:
    old = {"maximum_version": ssl.TLSVersion.TLSv1_2}
    found = Greeting().feed(hello(None, **old))
    assert found is not None
    assert (found.sni, found.versions) == (None, ("TLSv1.2",))


def test_is_the_same_however_it_is_cut() -> None:
    whole = hello()
    for cut in range(1, len(whole)):
        greeting = Greeting()
        assert greeting.feed(whole[:cut]) is None
        assert greeting.feed(whole[cut:]) == Greeting().feed(whole)
        assert greeting.taken == whole


def test_may_be_in_many_records() -> None:
    whole = hello()
    message = whole[5:]
    greeting = Greeting()
    came = [greeting.feed(record(bytes((byte,)))) for byte in message]
    assert came[:-1] == [None] * (len(message) - 1)
    assert came[-1] == Greeting().feed(whole)


def test_keeps_what_follows_it() -> None:
    greeting = Greeting()
    assert greeting.feed(hello() + b"more")
    assert greeting.taken.endswith(b"more")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO me\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0",
        b"\x80\x2e\x02",
        b"\x80\x2e\x01\0\3",
        b"\x15\x02",
        b"\x17x",
        "größe".encode("utf-16"),
        b"\xef\xbb\xbfHELO",
    ],
)
def test_what_is_no_tls_is_known_by_its_first_bytes(data: bytes) -> None:
    with pytest.raises(NotTLS):
        Greeting().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        record(b"\2\0\0\0"),
        record(b"", 22),
        record(b"x" * 20_000),
        record(b"\1\0") + record(b"x", 23),
        record(b"\1\xff\xff\xff"),
    ],
    ids=["ServerHello", "empty", "oversized", "data between", "huge"],
)
def test_what_is_no_client_hello_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        Greeting().feed(data)


FIRST = {
    "an alert": (b"\x15\3\1\0\2\2\x46", "began with the TLS alert protocol_version", None),
    "an alert that there is not": (b"\x15\3\3\0\2\1\xee", "the TLS alert 238", None),
    "encrypted": (record(b"x" * 40, 23), "first TLS record is application data", 10),
    "change": (record(b"\1", 20), "first TLS record is change_cipher_spec", 10),
    "heartbeat": (record(b"\1\0\1", 24), "first TLS record is a heartbeat", 10),
    "ServerHello": (record(b"\2\0\0\0"), "its first message is not a ClientHello", 10),
    "SSLv2": (b"\x80\x2e\1\0\2" + bytes(43), "has the form of SSLv2", 70),
    "SSLv2 for TLS": (b"\x80\x4c\1\3\1" + bytes(73), "has the form of SSLv2", 70),
    "version 2": (b"\x16\2\0\0\4\1\0\0\0", r"a version that there is not \(0x02..\)", 70),
    "DTLS": (b"\x16\xfe\xfd" + bytes(60), "of DTLS, which is for datagrams", 70),
}


@pytest.mark.parametrize("piece", [1, 100])
@pytest.mark.parametrize("first", FIRST)
def test_other_records_are_told_apart(first: str, piece: int) -> None:
    data, text, alert = FIRST[first]
    greeting = Greeting()
    with pytest.raises(BadHello, match=text) as caught:
        for at in range(0, len(data), piece):
            assert greeting.feed(data[at : at + piece]) is None
    assert caught.value.alert == alert


def test_one_that_does_not_end_is_refused() -> None:
    greeting = Greeting()
    size = 0
    with pytest.raises(BadHello, match="larger than 65,536 bytes"):
        greeting.feed(record(b"\1" + (LIMIT - 4).to_bytes(3)))
        while True:
            assert greeting.feed(record(b"x")) is None
            size += 6
    assert size <= LIMIT


@pytest.mark.parametrize("records", [1, 11_000])
def test_its_size_counts_and_not_how_it_is_cut(records: int) -> None:
    """One that grows by the heads of its records is refused in one piece as in two."""
    message = b"\1" + (60_000).to_bytes(3) + bytes(60_000)
    size = min(-(-len(message) // records), 1 << 14)
    whole = b"".join(record(message[at : at + size]) for at in range(0, len(message), size))
    for pieces in ([whole], [whole[:-1], whole[-1:]], [whole + bytes(10_000)]):
        greeting = Greeting()
        if records == 1:
            assert [greeting.feed(piece) for piece in pieces][-1] is not None
        else:
            with pytest.raises(BadHello, match="larger than 65,536 bytes"):
                [greeting.feed(piece) for piece in pieces]


def test_what_is_malformed_inside_is_left_to_openssl() -> None:
    """Every cut and every flipped byte is read as far as it goes, and raises nothing."""
    body = hello()[9:]
    for at in range(len(body)):
        read(body[:at])
        read(body[:at] + bytes((body[at] ^ 0xFF,)) + body[at + 1 :])
    assert read(b"") == Hello(None, (), ())
    assert read(body).sni == "Shop.example"


def test_a_host_that_is_not_ascii_is_shown_escaped() -> None:
    body = hello()[9:].replace(b"Shop", b"Sh\xf6p")
    assert read(body).sni == "Sh\\xf6p.example"
