"""Attributes that a server does not have: an error that says what was meant."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from kit.scripts import run_script
from sidestage import HTTPServer, Server, SMTPServer, TCPServer, UDPServer, classic

KINDS: list[type[Server[Any]]] = [HTTPServer, SMTPServer, TCPServer, UDPServer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong, right",
    [
        ("hander", "'handler'"),
        ("handle", "'handler'"),
        ("adress", "'address'"),
        ("timeout", "'handler_timeout' or 'start_timeout' or 'stop_timeout'"),
        ("recieved", "'received'"),
        ("statee", "'state'"),
    ],
)
def test_a_misspelled_name_is_an_error_that_names_the_near_one(
    kind: type[Server[Any]], wrong: str, right: str
) -> None:
    server = kind()
    text = f"^'{kind.__name__}' object has no attribute '{wrong}': did you mean {right}\\?$"
    with pytest.raises(AttributeError, match=text):
        setattr(server, wrong, print)
    with pytest.raises(AttributeError, match=text):
        getattr(server, wrong)
    assert wrong not in vars(server)


@pytest.mark.parametrize(
    "kind, wrong, right",
    [
        (HTTPServer, "log", "received"),
        (HTTPServer, "requests", "received"),
        (HTTPServer, "base_url", "url"),
        (HTTPServer, "expect_request", "expect"),
        (HTTPServer, "expect_ordered_request", "in_order"),
        (HTTPServer, "check_assertions", "verify"),
        (SMTPServer, "outbox", "received"),
        (SMTPServer, "messages", "received"),
        (UDPServer, "packets", "received"),
    ],
)
def test_a_name_of_another_tool_is_an_error_that_names_ours(
    kind: type[Server[Any]], wrong: str, right: str
) -> None:
    with pytest.raises(AttributeError, match=rf"attribute '{wrong}': did you mean '{right}'\?$"):
        getattr(kind(), wrong)


def test_a_name_of_another_tool_that_this_server_lacks_is_only_an_error() -> None:
    server: Any = TCPServer()
    with pytest.raises(AttributeError, match=r"no attribute 'check_assertions'$"):
        server.check_assertions  # noqa: B018


def test_what_is_like_nothing_is_an_error_too() -> None:
    server: Any = HTTPServer()
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'$"):
        server.xyzzy = 1
    assert not hasattr(server, "xyzzy")


def test_python_adds_no_second_suggestion() -> None:
    server: Any = HTTPServer()
    with pytest.raises(AttributeError) as caught:
        server.recieved  # noqa: B018
    printed = "".join(traceback.format_exception(caught.value))
    assert printed.lower().count("did you mean") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_known_and_private_names_can_be_set(kind: type[Server[Any]]) -> None:
    server: Any = kind()
    server.stop_timeout = 3.0
    server.poll_interval = 0.25
    server.name = "other"
    server.start = print  # as mock.patch.object does
    server._of_the_test = 1
    assert server._of_the_test == 1
    with pytest.raises(AttributeError, match="no attribute '_other'"):
        server._other  # noqa: B018


@pytest.mark.parametrize("kind", KINDS)
def test_derived_classes_are_free(kind: type[Server[Any]]) -> None:
    class Mine(kind):  # type: ignore[misc,valid-type]
        pass

    server = Mine()
    server.hander = 5
    assert server.hander == 5
    with pytest.raises(AttributeError, match=r"^'Mine' object has no attribute 'other'$"):
        server.other  # noqa: B018


def test_a_derived_class_may_set_attributes_by_another_base() -> None:
    class Doubled:
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value * 2 if name == "price" else value)

    class Mine(HTTPServer, Doubled):
        pass

    server: Any = Mine()
    server.price = 2
    assert server.price == 4


def test_the_classic_servers_are_free() -> None:
    server: Any = classic.TestTCPServer(("127.0.0.1", 0), print)
    server.hander = 5
    assert server.hander == 5


def test_a_name_that_is_right_does_not_load_difflib() -> None:
    source = """
        import sys
        from sidestage import HTTPServer
        server = HTTPServer()
        server.stop_timeout = 3
        print("difflib" in sys.modules)
        hasattr(server, "recieved")
        print("difflib" in sys.modules)
    """
    assert run_script(source) == "False\nTrue\n"
