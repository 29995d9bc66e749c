"""How the test's process is told of a client's requests, which are mostly alike. No I/O here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....wire.frames import Repeated
from .head import LONG

if TYPE_CHECKING:
    from ....child.channel import Outbox
    from ....wire.messages import Met
    from .exchange import Exchange
    from .head import Head


class Repeats:
    """Tells of the requests of one connection, each like the one before or not.

    One without a body that is like that before it differs in its call and its time only.
    """

    _head: Head | None = None  # of the last one without a body
    _met: Met | None = None
    _repeated: Repeated | None = None  # once one was like it

    def tell(self, outbox: Outbox, exchange: Exchange, *, kept: bool) -> None:
        """Send the message of ``exchange``; unless it is ``kept``, it may be dropped."""
        head, since = exchange.head, exchange.since
        assert head is not None
        assert since is not None
        if head is self._head and exchange.met is self._met:
            if self._repeated is None:
                self._repeated = Repeated(exchange.request())
            outbox.add_encoded(self._repeated.encoded(exchange.call, since), kept=kept)
            return
        if head.length == 0 and head.size <= LONG:
            self._head, self._met, self._repeated = head, exchange.met, None
        (outbox.send if kept else outbox.record)(exchange.request())
