"""The options of a server as its attributes: each is checked when it is set, and then counts.

One that can change while the server runs takes effect at once. One that cannot is refused then,
and else is for the next start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from ..errors import StateError, shown
from ..wire import values
from . import address as addresses
from .lifecycle import State

if TYPE_CHECKING:
    from typing import TypedDict

    class Options(TypedDict, total=False):
        """What all servers take, for the ``**options`` of those that take more."""

        name: str | None
        handler_timeout: float | None
        start_timeout: float
        stop_timeout: float
        keep: int
        fresh: bool
        backlog: int


T = TypeVar("T")

_MAX_BACKLOG = (1 << 31) - 1  # listen(2) takes an int
_RUNNING = frozenset({State.STARTING, State.READY, State.STOPPING})


class Setting(Generic[T]):
    """An option that is kept under its name in the server's ``__dict__``.

    ``check`` gets its name and the value, and returns what is kept. A setting is fixed while the
    server runs, unless it is ``live``. Then the server is told if it has to ``follow``.
    """

    def __init__(
        self,
        doc: str,
        check: Callable[[str, Any], T],
        *,
        live: bool = False,
        follow: bool = False,
    ) -> None:
        self.__doc__ = doc
        self._check = check
        self._live = live
        self._follow = follow

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    # No ``__get__``: Python finds the value in the ``__dict__`` without a call of ours.
    if TYPE_CHECKING:

        @overload
        def __get__(self, server: None, owner: type[object]) -> Self: ...
        @overload
        def __get__(self, server: object, owner: type[object]) -> T: ...
        def __get__(self, server: Any, owner: type[object]) -> Self | T: ...

    def begin(self, server: Settings, value: T) -> None:
        """Set it on a server that is being made, with nothing else to look at."""
        server.__dict__[self._name] = self._check(self._name, value)

    def __set__(self, server: Settings, value: T) -> None:
        checked = self._check(self._name, value)
        if not self._live:
            refuse_while_running(server, self._name)
        server.__dict__[self._name] = checked
        if self._follow and "_lifecycle" in server.__dict__:  # it is made
            server._change()


def refuse_while_running(server: Settings, name: str) -> None:
    """Raise StateError if ``server`` runs: what it has been started with stays."""
    lifecycle = server.__dict__.get("_lifecycle")
    if lifecycle is not None and not lifecycle.forked_copy and lifecycle.state in _RUNNING:
        raise StateError(
            f"{name} cannot change while {lifecycle._label} runs: stop it first, or pass "
            f"{name}=... when you make it"
        )


# Checks ------------------------------------------------------------------------------------------


def seconds_or_none(name: str, value: float | None) -> float | None:
    """Return seconds; ``None`` is no end."""
    return None if value is None else values.seconds(name, value)


def flag(name: str, value: object) -> bool:
    """Return a bool; raises TypeError for what is none, such as the text "no"."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def backlog_size(name: str, value: int) -> int:
    """Return a number of connections that listen(2) takes."""
    return values.count(name, value, least=1, most=_MAX_BACKLOG)


# What all servers have ---------------------------------------------------------------------------


class Settings:
    """The options of every server, beside its handler and its name."""

    poll_interval = Setting(
        "Seconds after which the server's process looks whether this one lives.", values.seconds
    )
    handler_timeout = Setting(
        "Seconds until a client is told that the handler gave no answer; ``None`` for no end.",
        seconds_or_none,
        live=True,
        follow=True,
    )
    start_timeout = Setting("Seconds that a start may take.", values.seconds, live=True)
    stop_timeout = Setting("Seconds that a stop may take.", values.seconds, live=True)
    keep = Setting("Bytes of records that are kept.", values.count, live=True, follow=True)
    fresh = Setting("Whether it gets a process that has served nothing before.", flag)
    backlog = Setting("Connections that may wait to be accepted.", backlog_size)

    @property
    def address(self) -> Any:
        """Where it was told to listen; ``server_address`` is what was bound."""
        return self._address

    @address.setter
    def address(self, address: addresses.AddressLike) -> None:
        listen = self._parse(address)
        refuse_while_running(self, "address")
        self._address, self._listen = address, listen

    def _begin(self, address: addresses.AddressLike, *options: Any) -> None:
        """Set the options of a new server, in the order of the settings here, which check them."""
        mine, checked = self.__dict__, None
        try:  # noqa: SIM105 - a context manager takes as long as the call
            checked = _known(*options)
        except TypeError:  # of one that is wrong, or that has no hash
            pass
        mine.update(checked or _check(*options))
        mine["_address"], mine["_listen"] = address, self._parse(address)

    def _parse(self, address: addresses.AddressLike) -> addresses.Listen:
        return addresses.parse(address)

    def _change(self) -> None:
        """Have the limits that may change at any time take effect."""
        raise AssertionError("the server has its own")


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    name: setting._check for name, setting in vars(Settings).items() if isinstance(setting, Setting)
}


def _check(*options: Any) -> dict[str, Any]:
    """The options of a new server as they are kept, in the order of their settings."""
    named = zip(_CHECKS.items(), options, strict=True)
    return {name: check(name, value) for (name, check), value in named}


# The servers of a test have the same options, and to check these is a good part of making one.
_known = functools.lru_cache(maxsize=16, typed=True)(_check)
