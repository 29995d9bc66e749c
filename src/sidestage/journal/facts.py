"""Plain values that describe a server: its name, its stop, its diagnostics."""

# No ``from __future__ import annotations``: NamedTuple compiles annotations that are text, which
# took a tenth of a millisecond of each import.
from typing import Literal, NamedTuple

Address = tuple[str | int, ...] | str
Rung = Literal["none", "ask", "close", "terminate", "kill", "died", "foreign", "underway"]


class Label:
    """The name of a server in messages; shared by the server and its runs."""

    __slots__ = ("kind", "name", "url")

    def __init__(self, kind: str, name: str | None) -> None:
        self.kind = kind  # the name of its class
        self.name = name
        self.url: str | None = None  # once it is bound

    def title(self) -> str:
        """The server's class and, if it has one, its name."""
        return self.kind if self.name is None else f"{self.kind} {self.name!r}"

    def __str__(self) -> str:
        named = self.name is not None or self.url is None
        return self.title() if named else f"{self.kind} at {self.url}"


class OpenConnection(NamedTuple):
    """A connection that had not finished when the server stopped; ``state`` says what it did."""

    client_address: Address
    state: str


class Open(NamedTuple):
    """A connection or a handler that is under way now, and what it waits for."""

    connection: int  # its number in its run; 0 if there is none
    state: str


class OpenNow(NamedTuple):
    """What is under way: the first of it, how much more there is, and whether that is known."""

    shown: tuple[Open, ...] = ()
    more: int = 0
    silent: bool = False  # what serves has not answered in time, so connections may be missing


class StopReport(NamedTuple):
    """How a stop went.

    ``rung`` is the step that ended the server: ``ask`` (it drained and closed by itself), ``close``
    (its pipe was closed), ``terminate`` (SIGTERM) or ``kill`` (SIGKILL). ``none`` means that the
    server was not running, ``died`` that its process had ended on its own, ``foreign`` that this is
    a forked copy, in which a stop does nothing, and ``underway`` that a handler called ``stop``
    while the server was already stopping.
    """

    rung: Rung
    seconds: float = 0.0
    connections: tuple[OpenConnection, ...] = ()
    stack: str | None = None  # where the process hung, if it could still report that
    swept: tuple[int, ...] = ()  # pids of descendants that had to be killed
    running: tuple[str, ...] = ()  # handlers that run on: their requests, and where they are

    @property
    def clean(self) -> bool:
        """Whether the server stopped by itself and every connection had finished."""
        return self.rung in ("none", "ask") and not self.connections

    def __str__(self) -> str:
        if self.rung == "none":
            return "nothing was running"
        lines = [f"stopped by {self.rung!r} in {self.seconds * 1000:.1f} ms"]
        lines += [f"  open: {_name(c.client_address)}: {c.state}" for c in self.connections]
        lines += [f"  runs on: {handler}" for handler in self.running]
        if self.stack:
            lines += ["  the process was at:", *(f"  | {line}" for line in self.stack.splitlines())]
        return "\n".join(lines)


class Diagnostic(NamedTuple):
    """A client broke the rules of its protocol, or the server gave up on something."""

    client_address: Address
    text: str

    def __str__(self) -> str:
        return f"{_name(self.client_address)}: {self.text}"


def _name(address: Address) -> str:
    if isinstance(address, str):
        return address or "unnamed client"
    return f"{address[0]}:{address[1]}" if len(address) > 1 else str(address)
