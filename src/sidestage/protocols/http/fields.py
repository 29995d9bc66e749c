"""Names of methods; and ordered names with text values: header fields, queries and forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

# Header fields whose values no text shows: reports are read by more people than tests run for.
SECRET = frozenset({"authorization", "proxy-authorization", "cookie"})  # names in lower case

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"}
)


def check_case(method: str) -> None:
    """Raise ValueError for a common method in lower case, which no client means."""
    if method not in METHODS and method.upper() in METHODS:
        raise ValueError(f'method {method!r}: case counts in methods; write "{method.upper()}"')


def near_method(method: str) -> str:
    """Of a method that is none of the common ones, a question for the one that is like it."""
    if method in METHODS:
        return ""
    import difflib  # late: few need it

    near = difflib.get_close_matches(method, sorted(METHODS), 1)
    return f" (is it {near[0]}?)" if near else ""


# Where there are more pairs, a look through all of them for each name would take seconds.
_MANY = 64


class Fields(Mapping[str, str]):
    """A read-only mapping in which a name may have several values, all ``str``.

    ``fields[name]`` is the first value and raises KeyError if there is none; ``get_all(name)``
    returns all values.
    """

    __slots__ = ("_index", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple((name, value) for name, value in pairs)
        self._index: dict[str, list[str]] | None = None  # of many, once one was looked for

    @staticmethod
    def _key(name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        wanted = self._key(name)
        if len(self._pairs) > _MANY:
            if found := self._by_key().get(wanted):
                return found[0]
            raise KeyError(name)
        for given, value in self._pairs:
            if self._key(given) == wanted:
                return value
        raise KeyError(name)

    def _by_key(self) -> dict[str, list[str]]:
        if self._index is None:
            index: dict[str, list[str]] = {}
            for name, value in self._pairs:
                index.setdefault(self._key(name), []).append(value)
            self._index = index
        return self._index

    def get_all(self, name: str) -> list[str]:
        """Return all values of ``name`` in order; an empty list if there is none."""
        wanted = self._key(name)
        if len(self._pairs) > _MANY:
            return [*self._by_key().get(wanted, ())]
        return [value for given, value in self._pairs if self._key(given) == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return all pairs of name and value, in order, with the names as they came."""
        return self._pairs

    def __iter__(self) -> Iterator[str]:
        seen = set()
        for name, _ in self._pairs:
            if self._key(name) not in seen:
                seen.add(self._key(name))
                yield name

    def __len__(self) -> int:
        return len({self._key(name) for name, _ in self._pairs})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Fields):
            return self._normal() == other._normal()
        if isinstance(other, Mapping):
            return self._normal() == {self._key(k): [v] for k, v in other.items()}
        return NotImplemented

    def _normal(self) -> dict[str, list[str]]:
        return {self._key(name): self.get_all(name) for name in self}

    def __hash__(self) -> int:
        normal = self._normal()
        return hash(frozenset((name, *values) for name, values in normal.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._pairs)!r})"


class Headers(Fields):
    """HTTP header fields: names are case-insensitive (RFC 9110 5.1)."""

    __slots__ = ()

    @staticmethod
    def _key(name: str) -> str:
        return name.lower()


def parse_fields(text: bytes) -> Headers:
    """Header or trailer fields as they came, whose syntax the child has checked."""
    lines = text.decode("latin-1").split("\r\n") if text else []
    found = [line.partition(":") for line in lines]
    return Headers((name, value.strip(" \t")) for name, _, value in found)
