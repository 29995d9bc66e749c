"""Listen addresses, as users write them and as they are bound."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.values import Index
from sidestage import HTTPServer, SMTPServer, StartError, TCPServer, UDPServer
from sidestage.server.address import Listen, client_host, parse, url

SERVERS = [TCPServer, UDPServer, SMTPServer, HTTPServer]
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(st.text("ab.-:1é%"), st.integers(0, 65535))
def test_any_host_and_port_are_kept_as_given(host: str, port: int) -> None:
    assert parse((host, port)) == Listen(host, port)


@given(anything | st.tuples(anything, anything) | st.lists(anything))
def test_whatever_is_passed_is_parsed_or_refused(address: Any) -> None:
    try:
        listen = parse(address)
    except (TypeError, ValueError):
        return
    assert listen.path or 0 <= listen.port <= 65535


@given(st.text(min_size=1, max_size=200))
def test_a_path_is_kept_or_refused(path: str) -> None:
    try:
        listen = parse("./" + path)
    except ValueError:
        assert "\0" in path or len(os.fsencode(path)) > 100 or not path.isprintable()
    else:
        assert listen == Listen(path="./" + path)


@pytest.mark.parametrize(
    "path", [b"/run/x", "/run/x", Path("/run/x")], ids=["bytes", "str", "Path"]
)
def test_a_path_may_come_in_three_types(path: Any) -> None:
    assert parse(path) == Listen(path="/run/x")


@pytest.mark.parametrize(
    "address, error, text",
    [
        (("127.0.0.1", -1), ValueError, "between 0 and 65535"),
        (("127.0.0.1", 65536), ValueError, "between 0 and 65535"),
        (("127.0.0.1", "80"), TypeError, "must be an int"),
        (("127.0.0.1", 80.0), TypeError, "must be an int"),
        (("127.0.0.1", True), TypeError, "must be an int"),
        (("127.0.0.1", 1 << 70), ValueError, "between 0 and 65535"),
        ((127, 0), TypeError, "must be a str"),
        (("::1", 0, 1, 0), ValueError, "flowinfo"),
        (("::1", 0, 0, -1), ValueError, "scope_id"),
        (("::1", 0, 0, "x"), TypeError, "scope_id"),
        (("a\0b", 0), ValueError, "cannot be one"),
        (("\udcff", 0), ValueError, "cannot be one"),
        (("127.0.0.1",), TypeError, r"\(host, port\)"),
        (8080, TypeError, r"for a port, pass \('127.0.0.1', 8080\)"),
        (print, TypeError, r"pass a handler by its keyword: handler=print"),
        ("http://x", ValueError, "'http://x' is a URL.*server.url"),
        ("unix:///run/x", ValueError, "is a URL"),
        (("http://x", 0), ValueError, "the host .* 'http://x' is a URL"),
        ("8080", ValueError, "pass a tuple"),
        ((8080, "127.0.0.1"), TypeError, r"an address is \(host, port\)"),
        (None, TypeError, r"\(host, port\)"),
        ("", ValueError, "empty"),
        ("localhost:80", ValueError, "pass a tuple"),
        ("/tmp/" + "x" * 120, ValueError, "may have 107 bytes here, not 125"),
        ("/tmp/a\0b", ValueError, "NUL"),
        (b"/tmp/\xff", ValueError, "UTF-8"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_starts(
    address: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        TCPServer(address)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"handler": "not callable"}, TypeError),
        ({"handler": 7}, TypeError),
        ({"poll_interval": -1}, ValueError),
        ({"poll_interval": "1"}, TypeError),
        ({"handler_timeout": -0.1}, ValueError),
        ({"start_timeout": float("nan")}, ValueError),
        ({"stop_timeout": -1}, ValueError),
        ({"keep": -1}, ValueError),
        ({"backlog": 1.5}, TypeError),
        ({"name": b"api"}, TypeError),
        ({"fresh": "no"}, TypeError),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    for server in SERVERS:
        with pytest.raises(error):
            server(**arguments)


def test_a_negative_stop_timeout_is_refused_and_the_server_goes_on() -> None:
    with TCPServer() as server:
        with pytest.raises(ValueError, match="timeout"):
            server.stop(-1)
        assert server.ready.is_set()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70 + ".example", "256.256.256.256"])
def test_a_host_that_does_not_resolve_is_a_start_error(host: str) -> None:
    with pytest.raises(StartError, match="does not resolve") as caught:
        TCPServer((host, 0)).start()
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_address_of_another_machine_is_a_start_error() -> None:
    with pytest.raises(StartError) as caught:
        TCPServer(("192.0.2.1", 0)).start()  # RFC 5737: reserved for documentation
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
@pytest.mark.parametrize(
    "host, family", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("", socket.AF_INET)]
)
def test_the_bound_address_is_reported(server: Any, host: str, family: int) -> None:
    with server((host, 0)) as running:
        assert running.port == running.server_address[1] > 0
        assert running.host == (host or "127.0.0.1")
        assert len(running.server_address) == (2 if family == socket.AF_INET else 4)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_fixed_port_is_bound(kind: int, host: str) -> None:
    with socket.socket(socket.AF_INET6 if host == "::1" else socket.AF_INET, kind) as reserved:
        reserved.bind((host, 0))
        port = reserved.getsockname()[1]
    server = (TCPServer if kind == socket.SOCK_STREAM else UDPServer)((host, port))
    with server:
        assert server.port == port


@pytest.mark.parametrize("server", [TCPServer, UDPServer])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port_that_is_taken_is_a_start_error(server: Any, host: str) -> None:
    with server((host, 0)) as first, pytest.raises(StartError, match="port 0") as caught:
        server((host, first.port)).start()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_needs_the_port_on_both_loopbacks(host: str) -> None:
    with TCPServer((host, 0)) as first, pytest.raises(StartError) as caught:
        TCPServer(("localhost", first.port)).start()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    "listen, expected",
    [
        (("tcp", "127.0.0.1", 5, None), "tcp://127.0.0.1:5"),
        (("http", "::1", 5, None), "http://[::1]:5"),
        (("http", "", 5, None), "http://127.0.0.1:5"),
        (("udp", "::", 5, None), "udp://[::1]:5"),
        (("tcp", None, None, "/run/a b"), "unix:///run/a b"),
        (("http", None, None, "/run/x"), "http+unix://%2Frun%2Fx"),
    ],
)
def test_a_url_is_ready_for_a_client(listen: Any, expected: str) -> None:
    assert url(*listen) == expected


@pytest.mark.parametrize(
    "host, connect_to", [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1")]
)
def test_clients_do_not_connect_to_a_wildcard(host: str, connect_to: str) -> None:
    assert client_host(host) == connect_to


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "0.0.0.0", "localhost:80"])
@pytest.mark.parametrize("kind", [Path, os.fsencode, lambda name: f"./{name}"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_path_is_a_path_whatever_it_looks_like(
    server: Any, kind: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with server(kind(name)) as running:
        assert running.server_address == os.fsdecode(kind(name))
        assert (tmp_path / name).is_socket()
    assert not (tmp_path / name).exists()


class Elsewhere:
    """Another kind of path."""

    def __fspath__(self) -> bytes:
        return b"localhost"


def test_whatever_has_a_path_is_one() -> None:
    assert parse(Elsewhere()) == Listen(path="localhost")


@pytest.mark.parametrize("name", ["\0app", "\0app:80", "\0localhost", "\0a\0b", b"\0app:80"])
@pytest.mark.parametrize("server", SERVERS)
def test_an_abstract_name_is_a_name_whatever_it_looks_like(server: Any, name: Any) -> None:
    text = os.fsdecode(name)
    unique = f"{text[0]}{os.getpid()}{text[1:]}"
    with server(unique.encode() if isinstance(name, bytes) else unique) as running:
        assert running.server_address == unique
        with pytest.raises(StartError) as caught:
            server(unique).start()
        assert caught.value.errno == errno.EADDRINUSE


class Host(str):
    """Text of another class."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize("server", SERVERS)
def test_an_address_may_be_of_other_classes(server: Any, tmp_path: Path) -> None:
    with server((Host("127.0.0.1"), Index(0))) as running:
        assert running.port > 0
    with server(Host(tmp_path / "s")) as running:
        assert running.server_address == str(tmp_path / "s")


@pytest.mark.parametrize("server", SERVERS)
def test_an_address_of_four_items(server: Any) -> None:
    """As the socket module gives those of IPv6."""
    with server(("::1", 0, 0, 0)) as running:
        assert running.server_address[0] == "::1"


def test_a_scope_is_a_part_of_the_host() -> None:
    assert parse(("fe80::1", 0, 0, 3)) == Listen("fe80::1%3", 0)


@pytest.mark.parametrize(
    "address", ["/" + "x" * 100_000, ("\udcff" * 100_000, 0), ["x"] * 100_000, b"\xff" * 100_000]
)
def test_an_error_about_an_address_does_not_quote_all_of_it(address: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        TCPServer(address)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "0.0.0.0"])
def test_a_host_alone_is_not_taken_for_a_path(host: str) -> None:
    with pytest.raises(ValueError, match="pass a tuple"):
        parse(host)
