"""Tracebacks of handlers' errors: what is in them is the test's, for every runner."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

import sidestage
from kit.scripts import eventually, run_script
from kit.web import fetch_quietly
from sidestage import (
    TLS,
    HTTPResponse,
    HTTPServer,
    ServerDied,
    ServerManager,
    SidestageError,
    SMTPServer,
    TCPServer,
    UDPServer,
    faults,
    matching,
)
from sidestage.journal.frames import FULL_TRACE, innermost, place_of

OURS = sidestage.__file__.removesuffix("__init__.py")


def frames(error: BaseException) -> list[str]:
    """The names of the functions in a traceback; "ours" is a frame of Sidestage."""
    shown = traceback.extract_tb(error.__traceback__)
    return ["ours" if frame.filename.startswith(OURS) else frame.name for frame in shown]


def ours_in(trace: TracebackType | None) -> int:
    return sum(frame.filename.startswith(OURS) for frame in traceback.extract_tb(trace))


def failing(request: Any) -> None:
    deeper()


def deeper() -> None:
    raise ValueError("expected")


async def failing_coroutine(request: Any) -> None:
    await asyncio.sleep(0)
    deeper()


def failing_generator(request: Any) -> Iterator[bytes]:
    yield b"x"
    deeper()


def failed(server: Any) -> None:
    """Have the handler fail once."""
    if isinstance(server, UDPServer):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", server.server_address)
            assert eventually(lambda: bool(server.errors))
    elif isinstance(server, HTTPServer):
        fetch_quietly(server.url)
    else:
        with socket.create_connection(server.server_address) as client:
            with contextlib.suppress(ConnectionResetError):
                client.recv(1)
            assert eventually(lambda: bool(server.errors))


@pytest.mark.parametrize("handler", [failing, failing_coroutine, failing_generator])
def test_an_error_has_the_frames_of_the_handler_alone(handler: Any) -> None:
    with contextlib.suppress(ValueError), HTTPServer(handler=handler) as server:
        failed(server)
        [error] = server.errors
        assert frames(error)[-2:] in ([handler.__name__, "deeper"], ["deeper"])
        assert "ours" not in frames(error)
        assert {"run", "awaited"}.isdisjoint(frames(error))


@pytest.mark.parametrize("kind", [HTTPServer, TCPServer, UDPServer])
class TestAtMostOneFrameOfOursIsAdded:
    def test_by_a_with(self, kind: Any) -> None:
        with pytest.raises(ValueError, match="expected") as caught, kind(handler=failing) as server:
            failed(server)
        assert ours_in(caught.value.__traceback__) <= 1

    def test_by_a_stop(self, kind: Any) -> None:
        server = kind(handler=failing).start()
        failed(server)
        with pytest.raises(ValueError, match="expected") as caught:
            server.stop()
        name = "test_by_a_stop"
        assert frames(caught.value) == [name, "ours", "failing", "deeper"]

    def test_by_raise_errors(self, kind: Any) -> None:
        with kind(handler=failing) as server:
            failed(server)
            with pytest.raises(ValueError, match="expected") as caught:
                server.raise_errors()
            assert ours_in(caught.value.__traceback__) == 1

    def test_by_a_restart(self, kind: Any) -> None:
        with kind(handler=failing) as server:
            failed(server)
            with pytest.raises(ValueError, match="expected") as caught:
                server.restart()
            assert ours_in(caught.value.__traceback__) == 1

    def test_by_a_manager(self, kind: Any) -> None:
        with (
            pytest.raises(ValueError, match="expected") as caught,
            ServerManager(one=kind(handler=failing), other=SMTPServer()) as manager,
        ):
            failed(manager["one"])
        assert ours_in(caught.value.__traceback__) <= 1

    def test_by_an_async_with(self, kind: Any) -> None:
        async def main() -> None:
            async with kind(handler=failing) as server:
                await asyncio.to_thread(failed, server)

        with pytest.raises(ValueError, match="expected") as caught:
            asyncio.run(main())
        assert ours_in(caught.value.__traceback__) <= 1


def test_what_has_led_to_an_error_has_none_either() -> None:
    def handler(request: Any) -> None:
        try:
            request.json()
        except ValueError as error:
            raise KeyError("no JSON") from error

    with pytest.raises(KeyError) as caught, HTTPServer(handler=handler) as server:
        fetch_quietly(server.url)
    cause = caught.value.__cause__
    assert cause is not None
    assert frames(cause)[0] == "handler"
    assert "ours" not in frames(cause)


def test_a_member_of_a_group_has_none_either() -> None:
    def handler(request: Any) -> None:
        with pytest.raises(ValueError, match="JSON") as each:
            request.json()
        raise ExceptionGroup("several", [each.value])

    with pytest.raises(ExceptionGroup) as caught, HTTPServer(handler=handler) as server:
        fetch_quietly(server.url)
    assert "ours" not in frames(caught.value.exceptions[0])


SCRIPT = """
import traceback, urllib.request
from sidestage import HTTPServer

def handler(request):
    1 / 0

try:
    with HTTPServer(handler=handler) as server:
        try:
            urllib.request.urlopen(server.url)
        except OSError as error:
            error.close()
except ZeroDivisionError:
    print(traceback.format_exc())
"""


def test_the_environment_can_ask_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_script(SCRIPT).count("sidestage/") == 0
    monkeypatch.setenv(FULL_TRACE, "0")
    assert run_script(SCRIPT).count("sidestage/") == 0
    monkeypatch.setenv(FULL_TRACE, "1")
    shown = run_script(SCRIPT)
    assert all(name in shown for name in ("__exit__", "stop", "run_handler"))


class TestTheLine:
    def test_is_the_innermost_of_the_users_files(self) -> None:
        def handler() -> None:
            json.loads("{")

        with pytest.raises(json.JSONDecodeError) as caught:
            handler()
        place = innermost(caught.value)
        assert place is not None
        line = handler.__code__.co_firstlineno + 1
        assert str(place) == f"{__file__}:{line}, in handler"

    def test_of_an_error_without_any_is_none(self) -> None:
        assert innermost(ValueError()) is None

    def test_of_a_handler_that_has_returned_is_where_it_is_defined(self) -> None:
        place = place_of(functools.partial(failing))
        assert place is not None
        assert (place.file, place.line) == (__file__, failing.__code__.co_firstlineno)

    def test_of_a_handler_in_c_is_none(self) -> None:
        assert place_of(len) is None
        assert place_of(None) is None


NOBODY_HAS_IT = ("192.0.2.1", 0)  # an address of no machine: RFC 5737
CALLS: dict[str, Callable[[HTTPServer], object]] = {
    "an argument": lambda server: HTTPServer("http://x"),
    "a setting": lambda server: setattr(server, "handler_timeout", -1),
    "a setting that is fixed": lambda server: setattr(server, "head_limit", 1),
    "a handler": lambda server: setattr(server, "handler", lambda: 1),
    "a misspelled name": lambda server: setattr(server, "hander", failing),
    "a start": lambda server: HTTPServer(NOBODY_HAS_IT).start(),
    "a second start": lambda server: server.start(),
    "a with": lambda server: HTTPServer(NOBODY_HAS_IT).__enter__(),
    "a manager": lambda server: ServerManager(a=HTTPServer(NOBODY_HAS_IT)).start(),
    "a stop": lambda server: server.stop("soon"),  # type: ignore[arg-type]
    "a url": lambda server: HTTPServer().url,
    "a wait": lambda server: server.wait_for(9, timeout=0),
    "a wait by what raises": lambda server: server.wait_for(lambda request: 1 // 0, timeout=0),
    "a wait on a loop": lambda server: asyncio.run(server.wait_for_async(9, 0)),
    "a selection": lambda server: server.received.of("/items", "GET"),
    "one record": lambda server: server.received.one("GET", "/items"),
    "a body": lambda server: server.received[0].json(),
    "an expectation": lambda server: server.expect("GET", "items"),
    "a reply": lambda server: server.allow("GET", "/items").reply({1}),
    "a held reply": lambda server: server.allow("GET", "/items").hold().reply(),
    "a held call": lambda server: server.take(timeout=0),
    "a held call on a loop": lambda server: asyncio.run(server.take_async("*", "x")),
    "a path": lambda server: server.url_for("items"),
    "a response": lambda server: HTTPResponse(headers={"a": object()}),  # type: ignore[dict-item]
    "a fault": lambda server: faults.reset({1}),
    "a word": lambda server: matching("("),
    "a TLS": lambda server: TLS.expired(hosts=3),  # type: ignore[arg-type]
    "a file of TLS": lambda server: server.ca_file,
}


RAISED = (TypeError, ValueError, AttributeError, ArithmeticError, SidestageError)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_wrong_with_a_call_has_at_most_one(name: str) -> None:
    """At most one: below the line that has made the call, all would be of ours."""
    with HTTPServer() as server:
        fetch_quietly(server.url)
        with pytest.raises(RAISED) as caught:
            CALLS[name](server)
    assert ours_in(caught.value.__traceback__) <= 1


def test_of_the_death_of_a_process_each_call_has_its_own() -> None:
    server = HTTPServer().start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        with pytest.raises(ServerDied) as caught:
            server.wait_for(1)
        assert len(frames(caught.value)) <= 2
    with pytest.raises(ServerDied):
        server.stop()
