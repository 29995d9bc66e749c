"""The table of fixtures: a line for each protocol, and what else users write by name."""

from __future__ import annotations

from typing import Literal

# The fixtures that are a server of one test, with the name of the class.
SERVERS = {
    "http_server": "HTTPServer",
    "smtp_server": "SMTPServer",
    "tcp_server": "TCPServer",
    "udp_server": "UDPServer",
}
# The fixtures that start servers on demand, with their scopes.
FACTORIES: dict[str, Literal["function", "module", "session"]] = {
    "serve": "function",
    "serve_module": "module",
    "serve_session": "session",
}
MANAGER = "server_manager"
FIXTURES = frozenset({*SERVERS, *FACTORIES, MANAGER})

MARK = "sidestage"
EXAMPLE = 'http_server={"head_limit": 100}'  # of what a mark says
