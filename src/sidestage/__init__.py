"""Real servers for tests: each runs in its own process, and its handler in the test's.

Importing this package is cheap: each name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .pristine.imports import importing_once

if TYPE_CHECKING:
    from .errors import (
        ForcedStopWarning,
        ServerDied,
        ServerStopped,
        SidestageError,
        StartError,
        StartTimeout,
        StateError,
        WaitTimeout,
    )
    from .journal.facts import Diagnostic, OpenConnection, StopReport
    from .journal.journal import Received
    from .journal.record import Answer
    from .journal.stats import ServerStats
    from .protocols.http.fields import Fields, Headers
    from .protocols.http.request import FormPart, HTTPRequest
    from .protocols.http.response import HTTPResponse
    from .protocols.http.server import HTTPServer
    from .protocols.smtp.mail import Mail
    from .protocols.smtp.server import SMTPServer
    from .protocols.tcp.connection import Connection, Transcript
    from .protocols.tcp.server import TCPServer
    from .protocols.udp.datagram import Datagram
    from .protocols.udp.server import UDPServer
    from .server.lifecycle import State
    from .server.manager import ServerManager
    from .server.server import Server

__version__ = "0.1.0"

_HOMES = {
    "Answer": "journal.record",
    "Connection": "protocols.tcp.connection",
    "Datagram": "protocols.udp.datagram",
    "Diagnostic": "journal.facts",
    "Fields": "protocols.http.fields",
    "ForcedStopWarning": "errors",
    "FormPart": "protocols.http.request",
    "HTTPRequest": "protocols.http.request",
    "HTTPResponse": "protocols.http.response",
    "HTTPServer": "protocols.http.server",
    "Headers": "protocols.http.fields",
    "Mail": "protocols.smtp.mail",
    "OpenConnection": "journal.facts",
    "Received": "journal.journal",
    "SMTPServer": "protocols.smtp.server",
    "Server": "server.server",
    "ServerDied": "errors",
    "ServerManager": "server.manager",
    "ServerStats": "journal.stats",
    "ServerStopped": "errors",
    "SidestageError": "errors",
    "StartError": "errors",
    "StartTimeout": "errors",
    "State": "server.lifecycle",
    "StateError": "errors",
    "StopReport": "journal.facts",
    "TCPServer": "protocols.tcp.server",
    "Transcript": "protocols.tcp.connection",
    "UDPServer": "protocols.udp.server",
    "WaitTimeout": "errors",
}

__all__ = [  # noqa: PLE0604, RUF100 - held against _HOMES by a test
    "Answer",
    "Connection",
    "Datagram",
    "Diagnostic",
    "Fields",
    "ForcedStopWarning",
    "FormPart",
    "HTTPRequest",
    "HTTPResponse",
    "HTTPServer",
    "Headers",
    "Mail",
    "OpenConnection",
    "Received",
    "SMTPServer",
    "Server",
    "ServerDied",
    "ServerManager",
    "ServerStats",
    "ServerStopped",
    "SidestageError",
    "StartError",
    "StartTimeout",
    "State",
    "StateError",
    "StopReport",
    "TCPServer",
    "Transcript",
    "UDPServer",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with importing_once():
        module = importlib.import_module(f".{home}", __name__)
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
