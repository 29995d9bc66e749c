"""An HTTP server over sockets: each client gets well-formed answers, to what is recorded."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections import defaultdict
from typing import Any, NamedTuple

from fuzz.cases import Case, Fault, cut
from fuzz.http_answers import read_answers
from fuzz.http_grammar import SEEDS, hostile, requests
from fuzz.sockets import Sockets, connect, read_all, reset, send_all
from sidestage import HTTPServer

_GOOD = b"POST /good?x=1 HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood"


def _answer(request: Any) -> Any:
    """Answer in one of several ways, by the request line alone; some do not read the body."""
    match zlib.crc32(f"{request.method} {request.target}".encode()) % 6:
        case 0:
            return request.body[:100]
        case 1:
            return (piece for piece in (b"a", request.body[:50], b"b" * 1000))
        case 2:
            return {"path": request.path, "query": request.query_string}
        case 3:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(b"by hand")
            return None
        case 4:
            request.send_response(200)
            request.send_header("Content-Length", "3")
            request.end_headers()
            request.wfile.write(b"abc")
            return None
        case _:
            return None


def _look(request: Any) -> Any:
    """Read all that a handler can read: of what a client sends only ValueError may come."""
    for read in (
        lambda: (request.path, request.query, request.headers, request.http_version),
        lambda: request.trailers,
        lambda: request.text,
        lambda: request.json(),
        lambda: request.form,
        lambda: request.files,
    ):
        with contextlib.suppress(ValueError, LookupError):  # LookupError: an unknown charset
            read()
    return b"looked"


class _Client(NamedTuple):
    got: bytes = b""
    whole: bool = False  # read to the end
    address: tuple[Any, ...] = ()


class HTTPSockets(Sockets):
    """Clients that send requests, good and hostile, in pieces, and end in several ways."""

    name = "http-sockets"
    what = "connections to an HTTP server"
    kind = HTTPServer
    handlers = (None, _answer, _look)

    def __init__(self) -> None:
        super().__init__()
        self._clients: list[_Client] = []

    def make(self, dice: random.Random) -> Case:
        if dice.random() < 0.3:
            parts, _ = requests(dice, 4)
        else:
            parts = hostile(dice, SEEDS, 3)
        return Case(parts, dice.getrandbits(32))

    def begin_batch(self) -> None:
        super().begin_batch()
        self._clients = []

    def connect(self) -> Any:
        """A client of the server."""
        return connect(self.server)

    def no_request(self) -> None:
        """Note a client that sends no request."""
        self._clients.append(_Client())

    def check(self, case: Case) -> None:
        dice = case.dice()
        resets = dice.random() < 0.1
        with self.connect() as client:
            self._clients.append(_Client())
            address = client.getsockname()
            sent = send_all(client, cut(case.data, dice, 4))
            if resets:
                reset(client)
                return
            if sent:
                end(client)
            self._clients[-1] = _Client(read_all(client), True, address)

    def ask(self) -> None:
        with self.connect() as client:
            client.sendall(_GOOD)
            [answer] = read_answers(read_all(client), ["POST"], ended=True)
        if answer.status != 200 or not answer.whole:
            raise Fault(f"a good request got {answer}")
        self._clients.append(_Client())

    def compare(self) -> None:
        records = defaultdict(list)
        for record in self.server.received:
            records[record.connection_number].append(record)
        if [record.path for record in records[len(self._clients)]] != ["/good"]:
            raise Fault(f"the good request is recorded as {records[len(self._clients)]}")
        told = {diagnostic.client_address for diagnostic in self.server.diagnostics}
        for number, client in enumerate(self._clients, 1):
            try:
                self._compare(client, records[number], broken_off=client.address in told)
            except Fault as fault:
                text = f"{fault}; connection {number} of the batch got {client.got[:500]!r}"
                raise Fault(text) from None
        if self.server.errors:
            raise Fault(f"a handler has raised {self.server.errors[0]!r}")

    def _compare(self, client: _Client, records: list[Any], *, broken_off: bool) -> None:
        if not client.whole:
            return
        methods: list[str | None] = [record.method for record in records]
        answers = read_answers(client.got, [*methods, None], ended=True)
        self.seen["answers"] += len(answers)
        ours = [answer for answer in answers if answer.status == 200]
        answered = [record for record in records if record.answer is not None]
        # The answer to a request that breaks off may cross the news that its client has ended.
        late = broken_off and self.handler is not None
        if not len(answered) - late <= len(ours) <= len(answered):
            raise Fault(f"{len(ours)} answers, {len(answered)} on the record")
        if len(answers) > len(ours) + 1:
            raise Fault(f"refused more than once: {[answer.status for answer in answers]}")


def end(client: Any) -> None:
    """Stop sending."""
    try:
        client.shutdown(1)
    except OSError:  # the server has reset the connection
        return
