"""The timeline of a journal, exactly as it is written."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sidestage.dispatch.slot import Slot
from sidestage.errors import ServerDied
from sidestage.journal.facts import Diagnostic, Open, OpenNow, StopReport
from sidestage.journal.journal import Journal
from sidestage.journal.record import Answer, Shown
from sidestage.protocols.http.messages import Request
from sidestage.protocols.http.request import HTTPRequest
from sidestage.reports.timeline import Scene, brief, timeline

NOBODY: Any = ("127.0.0.1", 4711)


def request(at: float, connection: int = 1, **facts: Any) -> HTTPRequest:
    """A request that the server's process has answered itself, unless ``call`` says otherwise."""
    fields: dict[str, Any] = {
        "call": 0,
        "method": "GET",
        "target": "/items",
        "http_version": "1.1",
        "fields": b"Host: x",
        "body": b"",
        "more": False,
        "cut": 0,
    }
    return HTTPRequest(Request(peer=NOBODY, at=at, connection=connection, **(fields | facts)))


class Record:
    """A record of a protocol that says nothing of how it is shown."""

    answer: Answer | None = None
    connection_number = 0

    def __init__(self, at: float) -> None:
        self.received_at = at

    def __repr__(self) -> str:
        return "<Record\nof two lines>"


def scene(journal: Journal[Any], **parts: Any) -> Scene:
    fields: dict[str, Any] = {
        "title": "<A server>",
        "slot": Slot(None),
        "open_now": OpenNow(),
        "stop": StopReport(rung="none"),
        "stderr": "",
    }
    return Scene(journal=journal, **(fields | parts))


def of(*records: Any, keep: int = 1 << 20) -> Journal[Any]:
    journal: Journal[Any] = Journal(keep)
    for record in records:
        journal.received(record, 100)
    return journal


def test_nothing_came() -> None:
    assert timeline(scene(of())) == "<A server>\nreceived: 0"


def test_each_kind_of_entry() -> None:
    journal = of(request(10.0), request(10.25, 2, call=1), Record(10.5))
    journal.diagnosed(Diagnostic(NOBODY, "sent 400"), at=11.0, connection=3)
    journal.diagnosed(Diagnostic(NOBODY, "a datagram"), at=11.5)
    journal.logged("asyncio: it broke\nTraceback", at=12.0)
    assert timeline(scene(journal)).splitlines()[1:] == [
        "received: 3",
        "    0.000 s  #1   GET /items -> 200, 0 bytes, no handler",
        "    0.250 s  #2   GET /items -> no complete answer",
        "    0.500 s       <Record\\nof two lines> -> not answered",
        "    1.000 s  #3   sent 400",
        "    1.500 s       127.0.0.1:4711: a datagram",
        "    2.000 s       logged asyncio: it broke",
        "                 Traceback",
    ]


def test_a_handlers_error_names_the_line_of_the_test() -> None:
    journal = of()
    try:
        raise KeyError("x")
    except KeyError as error:
        journal.failed(error, connection=4)
        line = error.__traceback__.tb_lineno  # type: ignore[union-attr]
    (told,) = timeline(scene(journal)).splitlines()[2:]
    assert told == f"    0.000 s  #4   handler raised KeyError: 'x', at test_timeline.py:{line}"
    assert journal.clear() == 1  # else the run would tell that nobody has seen it


def test_a_death_has_its_stderr() -> None:
    journal = of()
    journal.died(ServerDied("it", pid=1, exit_code=-9, stderr="one\ntwo"))
    assert timeline(scene(journal)).splitlines()[2:] == [
        "    0.000 s       the server's process was killed by SIGKILL",
        "                 its stderr ends with:",
        "                 | one",
        "                 | two",
    ]


def test_what_is_open_and_what_stderr_has() -> None:
    open_now = OpenNow((Open(3, "idle"), Open(0, "a datagram: handler running")), 2, silent=True)
    assert timeline(scene(of(), open_now=open_now, stderr="oh\x1b[2J")).splitlines()[2:] == [
        "open now:",
        "  #3   idle",
        "  -    a datagram: handler running",
        "  2 more",
        "  the server's process has not told in time what else is open",
        "stderr of the server's process:",
        "  | oh\\x1b[2J",
    ]


def test_a_forced_stop_says_how() -> None:
    assert "stopped by 'kill' in 1.0 ms" in timeline(scene(of(), stop=StopReport("kill", 0.001)))
    assert "stopped" not in timeline(scene(of(), stop=StopReport("ask", 0.001)))


def test_thirty_lines_and_the_number_of_those_before() -> None:
    text = timeline(scene(of(*(request(float(at), target=f"/{at}") for at in range(40)))))
    lines = text.splitlines()
    assert lines[1:4] == [
        "received: 40",
        "  13 earlier",
        "   13.000 s  #1   GET /13 -> 200, 0 bytes, no handler",
    ]
    assert lines[-1].endswith("GET /39 -> 200, 0 bytes, no handler")
    assert len(lines) == 30


def test_thirty_fit_without_a_number() -> None:
    assert len(timeline(scene(of(*(request(float(at)) for at in range(28))))).splitlines()) == 30


def test_an_entry_of_several_lines_is_whole_or_not_there() -> None:
    records = [request(float(at), body=b"x", fields=b"X-Id: 1") for at in range(20)]
    lines = timeline(scene(of(*records))).splitlines()
    assert len(lines) == 30
    assert lines[2:4] == [
        "  11 earlier",
        "   11.000 s  #1   GET /items -> 200, 0 bytes, no handler",
    ]


def test_everything_where_all_is_wanted() -> None:
    text = timeline(scene(of(*(request(float(at)) for at in range(500)))), None)
    assert len(text.splitlines()) == 502


def test_dropped_records_count_as_earlier() -> None:
    journal = of(*(request(float(at)) for at in range(10)), keep=500)
    assert timeline(scene(journal)).splitlines()[1:3] == [
        "received: 10 (5 of them dropped)",
        "  5 earlier",
    ]


def test_one_that_cannot_be_shown_does_not_hide_the_others() -> None:
    class Broken(Record):
        def _shown(self) -> Shown:
            raise RuntimeError

    lines = timeline(scene(of(Broken(1.0), request(2.0)))).splitlines()[2:]
    assert lines == [
        "    0.000 s       <Record\\nof two lines>",
        "    1.000 s  #1   GET /items -> 200, 0 bytes, no handler",
    ]


def test_a_message_ends_with_what_went_wrong_last_and_what_is_open() -> None:
    journal = of(request(1.0))
    for number in range(9):
        journal.diagnosed(Diagnostic(NOBODY, f"number {number}"), at=2.0 + number, connection=1)
    lines = brief(scene(journal, open_now=OpenNow((Open(3, "idle"),)))).splitlines()
    assert lines[1:2] + lines[-3:] == [
        "    5.000 s  #1   number 4",
        "    9.000 s  #1   number 8",
        "open now:",
        "  #3   idle",
    ]
    assert len(lines) == 8
    assert brief(scene(of(request(1.0)))) == ""


@pytest.mark.parametrize("lines", [30, 1])
def test_it_takes_as_long_however_much_there_is(lines: int) -> None:
    """A hundred thousand records, with bodies of a megabyte: 5 ms are for what is shown."""
    body = b"\xff" * (1 << 20)
    journal = of(*(request(float(at), body=body) for at in range(100_000)), keep=1 << 40)
    seconds = []
    for _ in range(5):
        before = time.thread_time()
        text = timeline(scene(journal), lines)
        seconds.append(time.thread_time() - before)
        assert len(text) < 5000
    assert min(seconds) < 0.005
