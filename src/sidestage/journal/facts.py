"""What a server tells of itself: how a stop went, what it used, what clients did wrong."""

from __future__ import annotations

from typing import Literal, NamedTuple

Address = tuple[str | int, ...] | str
Rung = Literal["none", "ask", "close", "terminate", "kill", "died", "foreign", "underway"]


class OpenConnection(NamedTuple):
    """A connection that had not finished when the server stopped."""

    client_address: Address
    state: str


class StopReport(NamedTuple):
    """How a stop went.

    ``rung`` is the step of the ladder that worked: ``ask`` (it drained and closed by itself),
    ``close`` (it ended when its pipe was closed), ``terminate`` (SIGTERM), ``kill`` (SIGKILL).
    ``none`` means that nothing ran, ``died`` that the process had ended on its own, ``foreign``
    that this is a forked copy, in which a stop does nothing, and ``underway`` that a handler
    called for a stop that was going on already.
    """

    rung: Rung
    seconds: float = 0.0
    connections: tuple[OpenConnection, ...] = ()
    stack: str | None = None  # where the process hung, if it had and could still tell
    swept: tuple[int, ...] = ()  # pids of descendants that had to be killed

    @property
    def clean(self) -> bool:
        """Whether everything had finished by itself."""
        return self.rung in ("none", "ask") and not self.connections

    def __str__(self) -> str:
        if self.rung == "none":
            return "nothing was running"
        lines = [f"stopped by {self.rung!r} in {self.seconds * 1000:.1f} ms"]
        lines += [f"  open: {_name(c.client_address)}: {c.state}" for c in self.connections]
        if self.stack:
            lines += ["  the process was at:", *(f"  | {line}" for line in self.stack.splitlines())]
        return "\n".join(lines)


class Diagnostic(NamedTuple):
    """Something a client did that its protocol does not allow, or that was given up on."""

    client_address: Address
    text: str

    def __str__(self) -> str:
        return f"{_name(self.client_address)}: {self.text}"


class ServerStats(NamedTuple):
    """What the server's process uses at this moment."""

    rss: int  # bytes
    cpu_seconds: float
    fds: int
    threads: int
    connections: int


def _name(address: Address) -> str:
    if isinstance(address, str):
        return address or "unnamed client"
    return f"{address[0]}:{address[1]}" if len(address) > 1 else str(address)
