"""Time-outs stand still at a debugger's prompt, in any thread."""

from __future__ import annotations

import bdb  # without a debugger loaded, its frames are not looked for
import smtplib
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidestage import HTTPServer, SMTPServer, UDPServer, WaitTimeout
from sidestage.dispatch import stacks

assert bdb

LIMIT = 0.2  # seconds; each prompt below takes longer
LONG = 30.0


class Prompt:
    """A debugger's prompt as it appears on the stack: a function of that name in such a module."""

    def __init__(self) -> None:
        self.entered, self._left = threading.Event(), threading.Event()
        namespace: dict[str, Any] = {"__name__": "pdb"}
        exec("def interaction(wait):\n    wait()", namespace)
        self._interaction: Callable[[Callable[[], Any]], None] = namespace["interaction"]

    def sit(self) -> None:
        """Stay at the prompt until told to continue."""
        self.entered.set()
        self._interaction(self._left.wait)

    def leave(self) -> None:
        """Continue."""
        self._left.set()

    def leave_late(self) -> None:
        """Continue after the time-outs would have ended."""
        self.entered.wait(LONG)
        timer = threading.Timer(3 * LIMIT, self.leave)
        timer.daemon = True
        timer.start()


@pytest.fixture
def prompt() -> Iterator[Prompt]:
    prompt = Prompt()
    yield prompt
    prompt.leave()


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_a_prompt_is_seen_from_any_thread(prompt: Prompt) -> None:
    assert not stacks.at_prompt()
    assert not stacks.wait_while_at_prompt()
    thread, _ = in_thread(prompt.sit)
    assert prompt.entered.wait(LONG)
    assert stacks.at_prompt()
    prompt.leave_late()
    assert stacks.wait_while_at_prompt()
    thread.join()


def test_a_function_that_is_only_called_so_is_no_prompt() -> None:
    def interaction() -> bool:
        return stacks.at_prompt()

    assert not interaction()


def test_a_client_is_answered_after_the_prompt(prompt: Prompt) -> None:
    def handler(request: Any) -> str:
        prompt.sit()
        return "answer"

    with HTTPServer(handler=handler, handler_timeout=LIMIT) as server:
        url = server.url
        thread, bodies = in_thread(lambda: urllib.request.urlopen(url, timeout=LONG).read())
        prompt.leave_late()
        thread.join()
        assert bodies == [b"answer"]
        assert server.diagnostics == ()


def test_a_mail_is_answered_after_the_prompt(prompt: Prompt) -> None:
    def handler(mail: Any) -> str:
        prompt.sit()
        return "250 seen"

    def send() -> tuple[int, bytes]:
        with smtplib.SMTP(server.host, server.port, timeout=LONG) as client:
            client.helo("localhost")
            client.mail("me@example.org")
            client.rcpt("you@example.org")
            return client.data(b"Subject: hello\r\n\r\n")

    with SMTPServer(handler=handler, handler_timeout=LIMIT) as server:
        thread, replies = in_thread(send)
        prompt.leave_late()
        thread.join()
        assert replies == [(250, b"seen")]
        assert server.diagnostics == ()


def test_a_wait_has_its_whole_time_again(prompt: Prompt) -> None:
    with HTTPServer() as server:
        thread, _ = in_thread(prompt.sit)
        prompt.leave_late()
        with pytest.raises(WaitTimeout):
            server.wait_for(1, timeout=LIMIT)
        assert not stacks.at_prompt()
        thread.join()


def test_a_stop_waits_for_the_prompt_and_the_exchange(prompt: Prompt) -> None:
    def handler(request: Any) -> str:
        prompt.sit()
        return "answer"

    server = HTTPServer(handler=handler).start()
    url = server.url
    thread, bodies = in_thread(lambda: urllib.request.urlopen(url, timeout=LONG).read())
    prompt.leave_late()
    report = server.stop(2 * LIMIT)
    thread.join()
    assert bodies == [b"answer"]
    assert (report.rung, report.connections) == ("ask", ())


@pytest.mark.parametrize("reset", [False, True])
def test_a_stop_waits_for_the_prompt_of_a_handler_whose_client_is_gone(
    reset: bool, prompt: Prompt
) -> None:
    """The client has time-outs of its own, and does not know of the prompt."""
    ended = threading.Event()

    def handler(request: Any) -> None:
        prompt.sit()
        ended.set()

    server = HTTPServer(handler=handler).start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert prompt.entered.wait(LONG)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    prompt.leave_late()
    report = server.stop()
    assert ended.is_set()
    assert (report.rung, report.running) == ("ask", ())


def test_a_datagram_is_answered_though_the_stop_came(prompt: Prompt) -> None:
    def handler(datagram: Any) -> bytes:
        prompt.sit()
        return b"answer"

    server = UDPServer(handler=handler).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        client.sendto(b"ask", server.server_address)
        prompt.leave_late()
        assert server.stop(2 * LIMIT).rung == "ask"
        assert client.recv(100) == b"answer"


def test_a_hung_handler_at_no_prompt_is_given_up_as_ever() -> None:
    release = threading.Event()
    server = HTTPServer(handler=lambda request: str(release.wait()), handler_timeout=LIMIT).start()
    with pytest.raises(urllib.error.HTTPError, match="504") as caught:
        urllib.request.urlopen(server.url, timeout=LONG)
    caught.value.close()
    release.set()
    server.stop()
