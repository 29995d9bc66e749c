"""Heads of requests for property tests: a grammar in which most is right, and mutations."""

from __future__ import annotations

from hypothesis import strategies as st

TOKEN = "!#$%&'*+-.^_`|~09azAZ"

_METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "x!y", "get"]
_TARGETS = ["/", "/a?b=%20", "//", "/a#b", "/x:y@z[", "http://t/x", "http://t:80?q", "HTTP://u"]
_ODD_TARGETS = [
    "*",
    "t:80",
    "t",
    "http://u@t/",
    "http://t:x/",
    "http://",
    "[::1]:1",
    "é",
    "a b",
    "",
]
_ODD_VERSIONS = [
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/1.10",
    "HTTP/1",
    "http/1.1",
    "RTSP/1.0",
    "",
]

_FIELDS = {  # values that are right, and others
    "Host": (["t", "t:80", "[::1]"], ["", "[::1", "u@t", "a, b", "a,b", "t:x", "t/x", "é", ":1"]),
    "Content-Length": (
        ["0", "5", "005", "5 "],
        ["5, 5", "5,6", "-1", "+5", "x", "", "1" * 21, "9" * 19, "0" * 30, "0x5", "5 5"],
    ),
    "Transfer-Encoding": (
        ["chunked", "Chunked "],
        ["gzip", "gzip, chunked", "chunked, chunked", "identity", "", ",", "chunked,", "x;chunked"],
    ),
    "Connection": (
        ["close", "keep-alive", "Close, x", "keep-alive,close", "upgrade", "x,"],
        ["é", ""],
    ),
    "Expect": (["100-continue", "100-Continue ", "x", "100-continue,x", "x, 100-continue"], [""]),
    "Upgrade": (["h2c", "websocket"], [""]),
    "A": (["x", "", "x \t", "\tx", "é", "a\tb", '"', "a,b", "x" * 300], ["\0", "\x01", "\x7f"]),
    TOKEN: (["x"], ["x"]),
}
_ODD_NAMES = ["", "A b", "é", "A(", "A:"]
_ODD_COLONS = [" :", "\t:", "", ":\r\n ", ": \r\n\t"]
_BYTES = b'\0\x01\t\n\r\x0b\x7f :,;/@?#[]*%"1x\xe9'


@st.composite
def _one_of(draw: st.DrawFn, right: list[str], odd: list[str], most: int = 12) -> str:
    """One of ``right``, and once in ``most`` times one of ``odd``."""
    return draw(st.sampled_from(right if draw(st.integers(1, most)) > 1 else odd))


@st.composite
def _request_lines(draw: st.DrawFn) -> str:
    if not draw(st.integers(0, 9)):
        method, target = draw(st.sampled_from([("OPTIONS", "*"), ("CONNECT", "t:80")]))
    else:
        method = draw(st.sampled_from(_METHODS) | st.text(TOKEN, min_size=1, max_size=5))
        target = draw(_one_of(_TARGETS, _ODD_TARGETS))
    return f"{method} {target} {draw(_one_of(['HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0'], _ODD_VERSIONS))}"


@st.composite
def _field_lines(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from([*_FIELDS]))
    value = draw(_one_of(*_FIELDS[name]))
    name = draw(_one_of([name, name.lower(), name.upper()], _ODD_NAMES, 40))
    return name + draw(_one_of([": ", ":", ":\t", ":  "], _ODD_COLONS, 40)) + value


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads that may be wrong in a line, or by bytes that are changed, added or missing."""
    lines = [draw(_request_lines())]
    if draw(st.integers(0, 19)):  # most have the field that HTTP/1.1 needs
        lines.append("Host: t")
    lines += draw(
        st.lists(_field_lines().filter(lambda line: line[:4].lower() != "host"), max_size=4)
    )
    if not draw(st.integers(0, 9)):
        lines.append("Host: " + draw(_one_of(*_FIELDS["Host"], 2)))
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(head) - 5))
        new = draw(st.sampled_from([b"", *(bytes([byte]) for byte in _BYTES)]))
        head = head[:at] + new + head[at + draw(st.sampled_from([0, 1, 1])) :]
    head = head.lstrip(b"\r\n")
    return head[: head.find(b"\r\n\r\n") + 4]
