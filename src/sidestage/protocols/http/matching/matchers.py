"""What a request has to be to meet an expectation: it crosses to the child, and is judged there.

The parts of the head and those of the body are judged apart, because the head comes first. Not
given is ``None`` here, and is not looked at.
"""

from __future__ import annotations

import msgspec

from ....patterns.tree import Objects, Pattern, Verdict, all_of
from .paths import Params, PathPattern
from .view import RequestView


class Matchers(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What an expectation looks at."""

    methods: tuple[str, ...]  # none is any
    path: PathPattern
    asks: bool = False  # an object with its own ``==``, or ``where``, decides in the test's process
    where: bool = False
    query: Pattern | None = None
    headers: Pattern | None = None
    cookies: Pattern | None = None
    auth: Pattern | None = None
    json: Pattern | None = None
    form: Pattern | None = None
    text: Pattern | None = None
    body: Pattern | None = None

    @property
    def needs_body(self) -> bool:
        """Whether it looks at the body."""
        return not (self.json is self.form is self.text is self.body is None)

    @property
    def ends_with_line(self) -> bool:
        """Whether it looks at nothing but the request line, which the child judges alone."""
        others = self.headers is self.cookies is self.auth is None
        return others and not (self.asks or self.needs_body)

    def line_fits(self, view: RequestView, asked: Objects = None) -> Verdict:
        """Whether the request line fits: method, path and query, likewise as ``head_fits``."""
        if self.methods and view.method not in self.methods:
            return False
        if self.path.match(view.segments) is None:
            return False
        return True if self.query is None else self.query.judge(view.query, asked)

    def head_fits(self, view: RequestView, asked: Objects = None) -> Verdict:
        """Whether the head fits; None if only the test's process can say and ``asked`` is None.

        ``where`` does not count.
        """
        if self.methods and view.method not in self.methods:
            return False
        if self.path.match(view.segments) is None:
            return False
        return self.fields_fit(view, asked)

    def fields_fit(self, view: RequestView, asked: Objects = None) -> Verdict:
        """Whether all of the head but method and path fits, which an index may know by itself."""
        if self.query is self.headers is self.cookies is self.auth is None:
            return True
        return self._fit(HEAD_PARTS, view, asked)

    def body_fits(self, view: RequestView, asked: Objects = None) -> Verdict:
        """Whether the body fits, likewise; only once it has come."""
        return self._fit(BODY_PARTS, view, asked) if self.needs_body else True

    def rest_fits(self, view: RequestView) -> Verdict:
        """Whether what follows the line fits, of a request that has come."""
        return self._fit(REST_PARTS, view, None)

    def _fit(self, parts: tuple[str, ...], view: RequestView, asked: Objects) -> Verdict:
        found: Verdict = True
        for name in parts:
            pattern: Pattern | None = getattr(self, name)
            if pattern is not None:
                verdict = pattern.judge(viewed(view, name), asked)
                if verdict is False:
                    return False
                if verdict is None:
                    found = None
        return found

    def verdict(self, view: RequestView, asked: Objects = None) -> Verdict:
        """Whether all of the request fits, likewise.

        With ``asked`` the caller has yet to call ``where``; without it, ``where`` makes it None.
        """
        found = self.head_fits(view, asked)
        if found is False:
            return False
        found = all_of((found, self.body_fits(view, asked)))
        return None if found and self.where and asked is None else found

    def params(self, view: RequestView) -> Params:
        """The parameters in the path; empty if it does not fit."""
        return self.path.match(view.segments) or {}


HEAD_PARTS = ("query", "headers", "cookies", "auth")
BODY_PARTS = ("json", "form", "text", "body")
REST_PARTS = (*HEAD_PARTS[1:], *BODY_PARTS)  # behind the line
_VIEWED = {"body": "octets"}

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Matchers)


def encode(matchers: Matchers) -> bytes:
    """The matchers as ``Declare`` carries them."""
    return _encoder.encode(matchers)


def decode(data: bytes) -> Matchers:
    """The matchers in a ``Declare``."""
    return _decoder.decode(data)


def viewed(view: RequestView, part: str) -> object:
    """What came, of a part of the head or the body."""
    return getattr(view, _VIEWED.get(part, part))
