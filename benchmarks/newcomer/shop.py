"""The code under test of both modules: a client of a shop, over one connection."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any, Self
from urllib.parse import urlencode


class Shop:
    """A client at ``host`` and ``port``; each call returns the status and what came."""

    def __init__(self, server: Any) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request; a ``dict`` is JSON. JSON that comes is decoded."""
        if isinstance(body, dict):
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, named)
        with self.connection.getresponse() as response:
            content = response.read()
        if "json" in response.headers.get("Content-Type", ""):
            return response.status, json.loads(content)
        return response.status, content.decode()

    def log_in(self, user: str, password: str) -> tuple[int, Any]:
        """Log in by HTTP Basic."""
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        return self.ask("GET", "/me", Authorization=f"Basic {token}")

    def post_form(self, path: str, **fields: str) -> tuple[int, Any]:
        """Send a form."""
        kind = "application/x-www-form-urlencoded"
        return self.ask("POST", path, urlencode(fields), Content_Type=kind)

    def persist(self, path: str, tries: int = 3) -> tuple[int, Any]:
        """Ask again as long as the answer is 503."""
        for _ in range(tries - 1):
            status, content = self.ask("GET", path)
            if status != 503:
                return status, content
        return self.ask("GET", path)
