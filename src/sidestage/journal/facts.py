"""Plain values that describe a server: how a stop went, what it uses, how it answered."""

from __future__ import annotations

from typing import Literal, NamedTuple

Address = tuple[str | int, ...] | str
Rung = Literal["none", "ask", "close", "terminate", "kill", "died", "foreign", "underway"]


class Label:
    """How messages call a server; shared by the server and what belongs to its runs."""

    __slots__ = ("kind", "name", "url")

    def __init__(self, kind: str, name: str | None) -> None:
        self.kind = kind  # its class's name
        self.name = name
        self.url: str | None = None  # once it is bound

    def title(self) -> str:
        """The class and, if it has one, the name."""
        return self.kind if self.name is None else f"{self.kind} {self.name!r}"

    def __str__(self) -> str:
        named = self.name is not None or self.url is None
        return self.title() if named else f"{self.kind} at {self.url}"


class Answer(NamedTuple):
    """How a request was answered.

    ``status`` is that of HTTP, or the code of the SMTP reply; ``None`` where the protocol has
    none. ``size`` is that of the body, of the reply or of what was sent, in bytes. ``seconds`` is
    the time from when the request came until it was answered.
    """

    at: float  # seconds on the monotonic clock
    status: int | None
    size: int  # bytes
    seconds: float


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
