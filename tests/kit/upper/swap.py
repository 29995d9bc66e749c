"""A layer that swaps upper and lower case, in both directions."""

from __future__ import annotations

from sidestage.child.net.layer import Layer


class Swap(Layer):
    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(bytes(data).swapcase())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(bytes(data).swapcase())


LAYER = Swap
