"""An HTTP server with TLS over sockets: clients that shake hands and those that do not."""

from __future__ import annotations

import functools
import random
from typing import Any

from fuzz import tls_grammar
from fuzz.cases import Case, cut
from fuzz.http_sockets import HTTPSockets, end
from fuzz.sockets import WAIT, connect, read_all, reset, send_all
from kit import secured
from sidestage import HTTPServer


class TLSSockets(HTTPSockets):
    """Half of the clients shake hands and send requests; the others send any ClientHello."""

    name = "tls-sockets"
    what = "connections to an HTTP server with TLS, half of them without a handshake"
    kind: Any = staticmethod(functools.partial(HTTPServer, tls=True))

    def make(self, dice: random.Random) -> Case:
        if dice.random() < 0.5:
            return super().make(dice)
        parts = tls_grammar.good(dice)[0] if dice.random() < 0.3 else tls_grammar.hostile(dice)
        return Case(parts, dice.getrandbits(32), "hello")

    def connect(self) -> Any:
        return secured.connect(self.server.server_address[:2], WAIT)

    def check(self, case: Case) -> None:
        if case.expected is None:
            super().check(case)
        else:
            self._greet(case)

    def _greet(self, case: Case) -> None:
        dice = case.dice()
        self.no_request()
        self.seen["hellos"] += 1
        with connect(self.server) as client:
            whole = send_all(client, cut(case.data, dice, 4))
            match dice.randrange(3):
                case 0:
                    reset(client)
                case 1 if whole:
                    end(client)
                    read_all(client)
