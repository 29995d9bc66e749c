"""A real child whose HTTP service is strict, controlled by commands; its clients have sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from kit.children import STOP, Child, child, configure, port_of
from kit.http_child import declare, head, reply
from sidestage.protocols.http.messages import Request, Respond
from sidestage.wire.messages import (
    Chosen,
    Counts,
    Diagnostic,
    Dropped,
    Hold,
    Lost,
    Message,
    Met,
    Ready,
    Returned,
    Stopped,
    Sync,
    Synced,
    Verdict,
    Withdraw,
)

__all__ = ["child"]  # the fixture


class Client:
    """A client of the child."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=15)

    def send(self, *requests: bytes) -> None:
        self._socket.sendall(b"".join(requests))

    def read(self) -> tuple[int, bytes]:
        """The status and the body of the next answer; ``(0, b"")`` at the end."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (came := self._socket.recv(1)):
                return 0, b""
            answer += came
        size = int(answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        body = b""
        while len(body) < size:
            body += self._socket.recv(size - len(body))
        return int(answer[9:12]), body

    def ask(self, path: str, *fields: str) -> tuple[int, bytes]:
        self.send(head("GET", path, *fields))
        return self.read()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


class Served:
    """A child that serves, and its clients."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._clients: list[Client] = []

    def start(self, *messages: Message, keep: int = 1 << 20) -> None:
        self.child.send(configure(protocol="http", keep=keep), *messages)
        self._port = port_of(self.child.wait_for(Ready))

    def connect(self) -> Client:
        self._clients.append(Client(self._port))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def served(child: Child) -> Iterator[Served]:
    served = Served(child)
    yield served
    served.close()


def met(served: Served) -> Met:
    found = served.child.wait_for(Request).met
    assert isinstance(found, Met)
    return found


def test_what_was_declared_before_it_is_ready_answers_the_first_client(served: Served) -> None:
    served.start(declare(1, "GET", "/a/{id:int}"), reply(1, b"one"))
    client = served.connect()
    assert client.ask("/a/7") == (200, b"one")
    assert met(served) == Met(entry=1, status=200, size=3, done=True)
    assert client.ask("/a/x")[0] == 404
    unexpected = met(served).unexpected
    assert "GET /a/x" in unexpected
    assert "test_shop.py:1" in unexpected


def test_what_is_declared_is_in_force_for_what_is_sent_after_it(served: Served) -> None:
    served.start()
    client = served.connect()
    assert client.ask("/a") == (200, b"")
    for number in range(1, 30):
        served.child.send(declare(number, "GET", f"/{number}"), reply(number, b"yes"))
        assert client.ask(f"/{number}") == (200, b"yes")
        served.child.send(Withdraw(entries=[number], strict=True))
        assert client.ask(f"/{number}")[0] == 404


def test_the_next_run_knows_nothing_of_this_one(served: Served) -> None:
    served.start(declare(1, "GET", "/a", where=True))
    client = served.connect()
    client.send(head("GET", "/a"))
    assert met(served).asks == (1,)
    assert served.child.ask(STOP, Stopped).clean
    served.start()
    assert served.connect().ask("/b") == (200, b"")


def test_what_is_delayed_holds_up_neither_others_nor_the_stop(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), reply(1, delay=3600.0), declare(2, "GET", "/b"))
    slow, quick = served.connect(), served.connect()
    slow.send(head("GET", "/a"))
    assert met(served).entry == 1
    assert quick.ask("/b") == (200, b"")
    stopped = served.child.ask(STOP, Stopped)
    assert (stopped.clean, stopped.open) == (True, [])
    assert slow.read() == (0, b"")
    text = "the connection ended before the delayed answer to GET /a"
    assert served.child.wait_for(Diagnostic).text == text


def test_a_delayed_answer_comes(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), reply(1, b"late", delay=0.05))
    client = served.connect()
    client.send(head("GET", "/a"), head("GET", "/a"))
    assert [client.read() for _ in range(2)] == [(200, b"late")] * 2


def test_one_question_is_out_at_a_time_and_nothing_else_waits(served: Served) -> None:
    served.start(declare(1, "GET", "/a", where=True), declare(2, "GET", "/b"))
    asking = [served.connect() for _ in range(3)]
    for client in asking:
        client.send(head("GET", "/a"))
    for _ in asking:
        request = served.child.wait_for(Request)
        assert request.met.asks == (1,)
        assert served.connect().ask("/b") == (200, b"")
        assert met(served).entry == 2
        assert served.child.ask(Sync(token=request.call), Synced)
        assert not [event for event in served.child.events if isinstance(event, Request)]
        served.child.send(Verdict(call=request.call, entry=1))
        assert served.child.wait_for(Chosen).met.entry == 1
    assert [client.read()[0] for client in asking] == [200] * 3


def test_a_client_that_leaves_lets_the_next_question_out(served: Served) -> None:
    served.start(declare(1, "GET", "/a", where=True))
    first, second = served.connect(), served.connect()
    first.send(head("GET", "/a"))
    asked = served.child.wait_for(Request)
    second.send(head("GET", "/a"))
    first.reset()
    assert served.child.wait_for(Lost).call == asked.call
    assert met(served).asks == (1,)
    served.child.send(Verdict(call=asked.call, entry=1), Returned(call=asked.call))
    assert served.child.ask(STOP, Stopped).clean


def test_what_is_held_is_answered_by_the_test(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), Hold(entry=1))
    client = served.connect()
    client.send(head("GET", "/a"))
    request = served.child.wait_for(Request)
    assert request.met == Met(entry=1, held=True)
    served.child.send(
        Respond(
            call=request.call,
            status=200,
            reason="OK",
            headers=(),
            body=b"taken",
            length=5,
            more=False,
        )
    )
    assert client.read() == (200, b"taken")


# Counts ----------------------------------------------------------------------------------------


LONG = "X-Long: " + "x" * 3000  # some hundreds of these fill the largest pipe


def requests_of(child: Child) -> int:
    return len([event for event in child.events if isinstance(event, Request)])


def test_counts_follow_what_is_dropped_and_are_told_at_the_stop(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), declare(2, "GET", "/b"), keep=1 << 16)
    client, child = served.connect(), served.child
    rounds = 600
    for _ in range(rounds):
        assert client.ask("/a", LONG)[0] == 200
    child.send(STOP)
    assert client.read() == (0, b"")  # the drain is over, and nothing was read
    assert child.wait_for(Stopped).clean
    kinds = [type(event) for event in child.events]
    dropped = [event for event in child.events if isinstance(event, Dropped)]
    assert dropped
    assert sum(event.count for event in dropped) + requests_of(child) == rounds
    counts = [event for event in child.events if isinstance(event, Counts)]
    assert counts[-1] == Counts(met=[(1, rounds)])
    assert kinds.index(Dropped) < len(kinds) - 1 - kinds[::-1].index(Counts)


def test_counts_are_those_of_what_came_before_them(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), keep=1 << 16)
    client, child = served.connect(), served.child
    for token in (1, 2):
        for _ in range(600):
            assert client.ask("/a", LONG)[0] == 200
        assert child.ask(Sync(token=token), Synced)
    known = 0
    for event in child.events:
        if isinstance(event, Counts):
            ((entry, known),) = event.met
            assert entry == 1
        elif isinstance(event, Request):
            known += 1
    assert known == 1200
    assert any(isinstance(event, Dropped) for event in child.events)


def test_nothing_is_told_of_counts_if_nothing_was_dropped(served: Served) -> None:
    served.start(declare(1, "GET", "/a"))
    assert served.connect().ask("/a")[0] == 200
    assert served.child.ask(STOP, Stopped)
    assert not [event for event in served.child.events if isinstance(event, Counts)]


def test_an_unexpected_request_is_not_dropped(served: Served) -> None:
    served.start(declare(1, "GET", "/a"), keep=1 << 16)
    client, child = served.connect(), served.child
    for target in ("/a",) * 600 + ("/no",) + ("/a",) * 600:
        client.ask(target, LONG)
    assert child.ask(STOP, Stopped)
    assert any(isinstance(event, Dropped) for event in child.events)
    met = [event.met for event in child.events if isinstance(event, Request)]
    assert [one.unexpected for one in met if one is not None and one.unexpected]
