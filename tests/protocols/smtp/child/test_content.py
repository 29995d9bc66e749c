"""The content of mails, piece by piece: where it ends, and what is wrong with it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.protocols.smtp.child.content import Content
from sidestage.protocols.smtp.rules import Refused, too_much_at_once

END = b".\r\n"


def read(stream: bytes, limit: int = 10_000, cuts: tuple[int, ...] = ()) -> tuple[Content, bytes]:
    """Feed a stream in pieces, until the content has ended; returns what follows it."""
    content = Content(limit)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    rest = b""
    for start, end in itertools.pairwise(edges):
        if content.ended:
            rest += stream[start:end]
        else:
            rest = content.feed(stream[start:end])
    return content, rest


def reply(stream: bytes, limit: int = 10_000) -> str:
    content, _ = read(stream, limit)
    assert content.ended
    with pytest.raises(Refused) as caught:
        content.whole()
    return caught.value.reply


lines = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b".x", b"x.", b"x" * 998, b"." + b"x" * 998]),
        st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n")),
    ),
    max_size=8,
)
cuts = st.lists(st.integers(0, 3000), max_size=8).map(tuple)


@given(lines, st.binary(max_size=20), cuts)
def test_what_a_client_sends_comes_whole_however_it_is_cut(
    mail: list[bytes], following: bytes, cuts: tuple[int, ...]
) -> None:
    short = [line[:998] for line in mail]
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in short)
    content, rest = read(stuffed + END + following, cuts=cuts)
    assert content.ended
    assert content.whole() == b"".join(line + b"\r\n" for line in short)
    assert (content.size, rest) == (len(stuffed + END), following)


@pytest.mark.parametrize("bare", [b"a\nb\r\n", b"a\rb\r\n"])
@pytest.mark.parametrize("before", [b"x" * 19, b"x" * 20, b"x" * 30, b"..\r\n" * 9, b"..\r\n" * 5])
def test_what_is_wrong_does_not_depend_on_how_it_is_cut(before: bytes, bare: bytes) -> None:
    """It is too large and has a bare line end: what comes first counts."""
    stream = before + b"\r\n" + bare + b"x" * 30 + b"\r\n" + END
    replies = set()
    for cut in range(len(stream)):
        content, _ = read(stream, 20, (cut,))
        assert content.refused is not None
        replies.add(content.refused.reply)
    assert len(replies) == 1


@given(st.text("\r\n.x", max_size=14), cuts)
def test_only_the_end_of_the_rfc_is_one(text: str, cuts: tuple[int, ...]) -> None:
    """Whatever line ends are mixed, and however it is cut, nothing is smuggled in."""
    stream = text.encode() + b"\r\n.\r\n"
    content, rest = read(stream, cuts=cuts)
    whole, whole_rest = read(stream)
    assert content.ended
    assert (content.refused is None) == (whole.refused is None)
    if content.refused is None:
        before, end, after = (b"\r\n" + stream).partition(b"\r\n.\r\n")
        assert end
        assert rest == after == whole_rest
        assert before.count(b"\n") == before.count(b"\r\n") == before.count(b"\r")
    else:
        assert content.refused.reply.startswith("554 ")
        assert whole.refused is not None
        assert content.refused.last == whole.refused.last
        if not content.refused.last:
            assert rest == whole_rest


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\rx", b"\n.\r"]
)
@pytest.mark.parametrize("size", [1, 2, 99])
def test_what_a_client_may_take_for_the_end_ends_the_session(end: bytes, size: int) -> None:
    stream = b"a line\r\nx" + end + b"MAIL FROM:<smuggled@x>\r\n"
    content = Content(1000)
    for start in range(0, len(stream), size):
        if not content.ended:
            assert content.feed(stream[start : start + size]) == b""
    assert content.ended
    assert content.refused is not None
    assert content.refused.last
    assert "bare" in content.refused.reply


@pytest.mark.parametrize("end", [b".\n", b".\rx"])
def test_a_mail_of_nothing_may_not_end_so_either(end: bytes) -> None:
    content, _ = read(end)
    assert content.ended
    assert content.refused is not None
    assert content.refused.last


@pytest.mark.parametrize(
    "mail, what",
    [
        (b"Subject: x\n\ntext\n\r\n", "a bare LF after 'Subject: x' in line 1"),
        (b"one\r\ntwo\rthree\r\n", "a bare CR after 'two' in line 2"),
        (b"one\r\r\n", "a bare CR after 'one' in line 1"),
        (b"\n\r\n", "a bare LF after '' in line 1"),
        (b"x" * 90 + b"\n\r\n", f"a bare LF after '{'x' * 40}' in line 1"),
    ],
)
def test_a_bare_line_end_is_named(mail: bytes, what: str) -> None:
    text = reply(mail + END)
    assert text.startswith(f"554 5.6.0 {what}")
    assert "CRLF" in text


def test_a_line_that_is_too_long_is_named() -> None:
    assert "line 2 has 999 bytes" in reply(b"one\r\n" + b"x" * 999 + b"\r\n" + END)
    assert "line 1 has 5,000 bytes" in reply(b"x" * 5000 + b"\r\n" + END)
    content, _ = read(b"x" * 998 + b"\r\n." + b"." * 998 + b"\r\n" + END)
    assert len(content.whole()) == 2000


def test_the_limit_counts_what_is_delivered() -> None:
    """RFC 1870 3: neither added dots nor the end count."""
    content, _ = read(b"..\r\n" * 10 + END, limit=30)
    assert len(content.whole()) == 30
    assert reply(b"..\r\n" * 10 + b"\r\n" + END, limit=30).startswith("552 5.3.4")
    assert reply(b"..\r\n" * 10 + b".\r\n", limit=29).startswith("552 5.3.4")


@pytest.mark.parametrize("mail", [b"x" * 90 + b"\r\n", b"x" * 90 + b"\n"])
def test_what_is_refused_is_not_kept(mail: bytes) -> None:
    content = Content(1000)
    for _ in range(1000):
        content.feed(mail)
    assert content.held < 5
    assert content.size == 1000 * len(mail)
    content.feed(b"\r\n")
    assert content.feed(END + b"next") == b"next"
    assert content.ended


def test_a_mail_can_be_refused_from_outside() -> None:
    content = Content(1000)
    content.feed(b"half a ma")
    content.refuse(too_much_at_once())
    assert content.feed(b"il\r\n.\r\nQUIT") == b"QUIT"
    with pytest.raises(Refused, match=r"^452 4\.3\.1 "):
        content.whole()
