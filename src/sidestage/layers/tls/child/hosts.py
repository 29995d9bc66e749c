"""Certificates for any host: the test's process makes each when a client first asks for it."""

from __future__ import annotations

import itertools
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from ....wire.messages import Message
from ..messages import Certificate, CertificateWanted, Settings
from .context import make_context

if TYPE_CHECKING:
    from .handshake import Handshake

_LIMIT = 1000  # hosts whose contexts are kept
_LONGEST = 253  # characters of a host
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class Hosts:
    """The contexts of all hosts that were asked for, and who waits for one."""

    def __init__(
        self, default: ssl.SSLContext, settings: Settings, send: Callable[[Message], None]
    ) -> None:
        self._default = default  # for what is no name of a host
        self._send = send
        self._settings = settings
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._asked: dict[int, str] = {}  # hosts, by token
        self._waiting: dict[str, list[Handshake]] = {}  # by host
        self._next_token = itertools.count(1).__next__

    def context_for(self, handshake: Handshake, asked: str) -> ssl.SSLContext | None:
        """The context for a host; ``None`` if ``handshake`` has to wait until ``go_on``."""
        host = asked.lower().rstrip(".")
        if len(host) > _LONGEST or not _HOST.fullmatch(host):
            return self._default
        context = self._contexts.get(host)
        if context is not None:
            return context
        if host not in self._waiting:
            token = self._next_token()
            self._asked[token] = host
            self._waiting[host] = []
            self._send(CertificateWanted(token=token, host=host))
        self._waiting[host].append(handshake)
        handshake.waits_for = host
        return None

    def answered(self, message: Certificate) -> None:
        """Let those who wait for a certificate go on."""
        host = self._asked.pop(message.token, None)
        if host is None:
            return
        context: ssl.SSLContext | str
        try:
            if not message.certificate:
                raise ValueError(message.error)
            context = make_context(self._settings, message.certificate, message.key)
        except ValueError as error:
            context = str(error)
        else:
            self._contexts[host] = context
            if len(self._contexts) > _LIMIT:
                del self._contexts[next(iter(self._contexts))]
        for handshake in self._waiting.pop(host, []):
            handshake.go_on(context)

    def forget(self, handshake: Handshake) -> None:
        """``handshake`` waits no longer."""
        waiting = self._waiting.get(handshake.waits_for, [])
        if handshake in waiting:
            waiting.remove(handshake)
