"""A layer that makes letters upper case, in both directions."""

from __future__ import annotations

from sidestage.child.net.layer import Layer


class Upper(Layer):
    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(bytes(data).upper())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(bytes(data).upper())


LAYER = Upper
