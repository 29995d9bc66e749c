"""The transport stack of a connection: stream, layers, protocol.

Each layer is the transport of what is above it and the receiver of what is below. Without layers,
the protocol is the stream's own receiver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .stream import Receiver, Transport

LayerFactory = Callable[[Receiver], "Layer"]


class Layer(Transport):
    """A layer that passes everything on; derive from it and override what is to change.

    Bytes that a layer keeps have to be copied: they may be in a buffer that is used again.
    """

    below: Transport

    def __init__(self, above: Receiver) -> None:
        super().__init__()
        self.above = above

    # Upwards -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.below = transport
        self.above.connection_made(self)

    def data_received(self, data: bytes | memoryview) -> None:
        self.above.data_received(data)

    def eof_received(self) -> bool | None:
        return self.above.eof_received()

    def pause_writing(self) -> None:
        self.above.pause_writing()

    def resume_writing(self) -> None:
        self.above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.above.connection_lost(exc)

    # Downwards -----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.below.get_extra_info(name, default)

    def is_reading(self) -> bool:
        return self.below.is_reading()

    def pause_reading(self) -> None:
        self.below.pause_reading()

    def resume_reading(self) -> None:
        self.below.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.below.write(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return self.below.can_write_eof()

    def write_eof(self) -> None:
        self.below.write_eof()

    def is_closing(self) -> bool:
        return self.below.is_closing()

    def close(self) -> None:
        self.below.close()

    def close_lingering(self) -> None:
        self.below.close_lingering()

    def abort(self) -> None:
        self.below.abort()

    def reset(self) -> None:
        self.below.reset()

    def reset_when_sent(self) -> None:
        self.below.reset_when_sent()

    def has_unread(self) -> bool:
        return self.below.has_unread()


def stacked(receiver: Receiver, layers: list[LayerFactory]) -> Receiver:
    """Put ``layers`` on top of a stream, in this order, and ``receiver`` on top of them."""
    for layer in reversed(layers):
        receiver = layer(receiver)
    return receiver
