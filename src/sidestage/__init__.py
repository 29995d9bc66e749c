"""Real servers for tests, each in a process of its own, with the handler in the test's.

Importing this costs little: each name is imported where it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .imports import importing_once

if TYPE_CHECKING:
    from .connection import Connection, Transcript
    from .datagram import Datagram
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
    from .fields import Fields, Headers
    from .http import HTTPServer
    from .mail import Mail
    from .manager import ServerManager
    from .records import Received
    from .report import Diagnostic, OpenConnection, ServerStats, StopReport
    from .request import HTTPRequest
    from .response import HTTPResponse
    from .server import Server
    from .smtp import SMTPServer
    from .state import State
    from .tcp import TCPServer
    from .udp import UDPServer

__version__ = "0.1.0"

_HOMES = {
    "Connection": "connection",
    "Datagram": "datagram",
    "Diagnostic": "report",
    "Fields": "fields",
    "ForcedStopWarning": "errors",
    "HTTPRequest": "request",
    "HTTPResponse": "response",
    "HTTPServer": "http",
    "Headers": "fields",
    "Mail": "mail",
    "OpenConnection": "report",
    "Received": "records",
    "SMTPServer": "smtp",
    "Server": "server",
    "ServerDied": "errors",
    "ServerManager": "manager",
    "ServerStats": "report",
    "ServerStopped": "errors",
    "SidestageError": "errors",
    "StartError": "errors",
    "StartTimeout": "errors",
    "State": "state",
    "StateError": "errors",
    "StopReport": "report",
    "TCPServer": "tcp",
    "Transcript": "connection",
    "UDPServer": "udp",
    "WaitTimeout": "errors",
}

__all__ = [  # noqa: PLE0604, RUF100 - held against _HOMES by a test
    "Connection",
    "Datagram",
    "Diagnostic",
    "Fields",
    "ForcedStopWarning",
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
