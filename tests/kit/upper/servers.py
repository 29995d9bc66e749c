"""Servers with layers."""

from __future__ import annotations

from pathlib import Path

from sidestage import HTTPServer, SMTPServer, TCPServer

TESTS = str(Path(__file__).resolve().parent.parent.parent)
UPPER = (TESTS, "kit.upper.upper")
SWAP = (TESTS, "kit.upper.swap")


class UpperTCPServer(TCPServer):
    _layers = (UPPER,)


class UpperHTTPServer(HTTPServer):
    _layers = (UPPER,)


class UpperSMTPServer(SMTPServer):
    _layers = (UPPER,)
