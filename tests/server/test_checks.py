"""What cannot be a handler is refused when it is set, with what to write instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import StreamRequestHandler
from typing import Any
from unittest.mock import Mock

import pytest

from sidestage import HTTPServer, TCPServer, classic

ANY = ("127.0.0.1", 0)


def wsgi(environ: Any, start_response: Any) -> Any:
    """A WSGI application."""


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


class Application:
    """A WSGI application as Flask's and Django's are."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer."""


class Both:
    """Handlers and others, as methods."""

    def __call__(self, request: Any) -> None:
        """Answer."""

    def handle(self, request: Any, more: int = 1) -> None:
        """Answer."""

    def alone(self) -> None:
        """Take nothing."""

    @classmethod
    def of_class(cls, request: Any) -> None:
        """Answer."""

    @staticmethod
    def static(request: Any) -> None:
        """Answer."""


def keyword(request: Any, *, needed: int) -> None:
    """Need more than a request."""


@pytest.mark.parametrize(
    "handler, text",
    [
        (wsgi, r"wsgi\(environ, start_response\) \(test_checks.py:\d+\) is a WSGI application"),
        (Application(), r"Application.__call__\(environ, start_response\) .* a WSGI application"),
        (asgi, r"asgi\(scope, receive, send\) .* is an ASGI application.*uvicorn"),
        (Both().alone, r"Both.alone\(\) .* cannot be called so"),
        (lambda: "hello", r"<lambda>\(\) .* cannot be called so"),
        (lambda a, b: "hello", r"<lambda>\(a, b\) .* cannot be called so"),
        (keyword, r"keyword\(request, needed\) .* cannot be called so"),
        (5, "callable with one argument, not 5"),
        (BaseHTTPRequestHandler, "BaseHTTPRequestHandler is a request handler class, as sockets"),
    ],
)
def test_what_cannot_be_called_with_a_request_is_refused(handler: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        HTTPServer(handler=handler)
    server = HTTPServer()
    with pytest.raises(TypeError, match=text):
        server.handler = handler
    assert server.handler is None


def test_a_classic_server_takes_a_function_too() -> None:
    with pytest.raises(TypeError, match="the attribute RequestHandlerClass beside its handler"):
        classic.TestTCPServer(ANY, StreamRequestHandler)


def test_the_error_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"write `def handler\(request\): return ...`"):
        HTTPServer(handler=wsgi)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "handler",
    [
        lambda request: None,
        lambda *arguments: None,
        lambda request=None, more=1: None,
        Both(),
        Both().handle,
        Both.of_class,
        Both.static,
        Both,
        print,
        [].append,
        Mock(),
        functools.partial(wsgi, {}),
    ],
)
def test_what_can_be_called_with_a_request_is_taken(handler: Callable[..., Any]) -> None:
    assert TCPServer(handler=handler).handler is handler


def test_the_classic_servers_take_what_they_call() -> None:
    def handler(peer: Any, mail_from: str, rcpt_tos: list[str], data: str) -> None:
        """Take a mail."""

    assert classic.TestSMTPServer(ANY, handler).handler is handler
