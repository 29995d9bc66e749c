"""``expected_errors``: what a test expects of a handler fails nothing."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from kit.scripts import eventually
from kit.web import fetch_quietly
from sidestage import HTTPServer, UDPServer, UnmetExpectation


def lookup(request: Any) -> Any:
    return {}[request.path]


def test_errors_of_these_kinds_are_taken() -> None:
    with HTTPServer(handler=lookup) as server:
        with server.expected_errors(KeyError) as taken:
            fetch_quietly(server.url + "/a")
            fetch_quietly(server.url + "/b")
        assert [error.args for error in taken] == [("/a",), ("/b",)]
        assert server.errors == tuple(taken)


def test_a_base_class_takes_them_too() -> None:
    with HTTPServer(handler=lookup) as server, server.expected_errors(OSError, LookupError):
        fetch_quietly(server.url)


def test_what_no_handler_raises_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write `with pytest.raises\(UnmetExpectation\)"):
        HTTPServer().expected_errors(KeyError, UnmetExpectation)


def test_none_may_come() -> None:
    with HTTPServer() as server, server.expected_errors(KeyError) as taken:
        fetch_quietly(server.url)
    assert taken == []


def test_others_are_raised_as_ever() -> None:
    with pytest.raises(KeyError), HTTPServer(handler=lookup) as server:
        with server.expected_errors(ValueError):
            fetch_quietly(server.url)


def test_those_before_and_after_are_raised() -> None:
    with pytest.raises(ExceptionGroup, match="2 errors") as caught:
        with HTTPServer(handler=lookup) as server:
            fetch_quietly(server.url + "/before")
            with server.expected_errors(KeyError):
                fetch_quietly(server.url + "/inside")
            fetch_quietly(server.url + "/after")
    assert [error.args for error in caught.value.exceptions] == [("/before",), ("/after",)]


def test_one_that_comes_later_is_taken_if_its_request_came_inside() -> None:
    go_on = threading.Event()

    def handler(datagram: Any) -> None:
        go_on.wait(10)
        raise KeyError(datagram.packet)

    with UDPServer(handler=handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            with server.expected_errors(KeyError) as taken:
                client.sendto(b"x", server.server_address)
                server.wait_for(1)
            assert not taken
            go_on.set()
            assert eventually(lambda: len(server.errors) == 1)
            assert len(taken) == 1


def test_what_the_body_raises_goes_on() -> None:
    with HTTPServer(handler=lookup) as server:
        with pytest.raises(ValueError, match="the body's own"), server.expected_errors(KeyError):
            fetch_quietly(server.url)
            raise ValueError("the body's own")


@pytest.mark.parametrize("kinds", [(), ("KeyError",), (KeyError("x"),), (int,)], ids=repr)
def test_only_classes_of_exceptions_can_be_expected(kinds: Any) -> None:
    with pytest.raises(TypeError, match=r"with server.expected_errors\(KeyError\)"):
        HTTPServer().expected_errors(*kinds)
