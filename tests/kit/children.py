"""A real child, controlled through its channel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from kit.messages import EVENTS
from sidestage.pristine.waits import Deadline
from sidestage.process.channel import Channel
from sidestage.process.handle import ServerProcess
from sidestage.process.launch import launch
from sidestage.protocols.http.messages import HTTPSettings
from sidestage.protocols.smtp.messages import SMTPSettings
from sidestage.protocols.tcp.messages import TCPSettings
from sidestage.protocols.udp.messages import UDPSettings
from sidestage.wire.frames import pack
from sidestage.wire.messages import Configure, Message, Ready, Stop

SECONDS = 15.0  # at most, for what comes at once


class Child:
    """A child, and the events that it has sent."""

    def __init__(self) -> None:
        self.process = ServerProcess(launch())
        self._channel = Channel(self.process.launched.events_fd, self.process.launched.commands_fd)
        self._channel.buffer.learn(EVENTS)
        self.events: list[Message] = []

    def send(self, *messages: Message) -> None:
        self._channel.send(*messages, deadline=Deadline(SECONDS))

    def send_raw(self, data: bytes) -> None:
        os.write(self.process.launched.commands_fd, data)

    def wait_for(self, kind: type[Any]) -> Any:
        """Wait for the next event of this kind, and return it."""
        deadline = Deadline(SECONDS)
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            assert self._channel.poll(deadline), f"no {kind.__name__} but {self.events}"
            self.events += self._channel.receive()
        self.events.remove(found[0])
        return found[0]

    def ask(self, message: Message, kind: type[Any]) -> Any:
        self.send(message)
        return self.wait_for(kind)

    def is_silent(self, seconds: float) -> bool:
        return not self._channel.poll(Deadline(seconds))

    def ended(self) -> bool:
        return self.process.wait(Deadline(SECONDS))

    def close(self) -> None:
        self.process.kill()
        self.ended()
        self.process.close()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def configure(**changes: Any) -> Configure:
    fields: dict[str, Any] = {
        "protocol": "tcp",
        "host": "127.0.0.1",
        "port": 0,
        "path": None,
        "cwd": None,
        "poll_interval": 0.5,
        "handler_timeout": None,
        "keep": 1 << 20,
        "backlog": 16,
    }
    fields |= changes
    return Configure(settings=pack(SETTINGS[fields["protocol"]]), **fields)


SETTINGS: dict[str, Message] = {
    "http": HTTPSettings(),
    "smtp": SMTPSettings(),
    "tcp": TCPSettings(),
    "udp": UDPSettings(),
}
STOP = Stop(drain=1.0, caller=0)


def port_of(ready: Ready) -> int:
    return int(ready.addresses[0][1])
