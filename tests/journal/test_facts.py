"""Stop reports, diagnostics and statistics as text."""

from __future__ import annotations

from typing import get_args

import pytest

from sidestage import Diagnostic, OpenConnection, ServerStats, StopReport, TCPServer
from sidestage.journal.facts import Rung

CLIENT = ("127.0.0.1", 4711)


@pytest.mark.parametrize("rung", get_args(Rung))
def test_only_a_stop_that_needed_no_force_is_clean(rung: Rung) -> None:
    assert StopReport(rung=rung).clean == (rung in ("none", "ask"))


def test_a_stop_with_an_open_connection_is_not_clean() -> None:
    connection = OpenConnection(client_address=CLIENT, state="idle")
    assert not StopReport(rung="ask", connections=(connection,)).clean


def test_no_stop() -> None:
    assert str(StopReport(rung="none")) == "nothing was running"


def test_an_easy_stop_is_one_line() -> None:
    assert str(StopReport(rung="ask", seconds=0.00123)) == "stopped by 'ask' in 1.2 ms"


def test_a_hard_stop_names_what_was_open_and_where_the_process_was() -> None:
    report = StopReport(
        rung="kill",
        seconds=1.0,
        connections=(
            OpenConnection(client_address=CLIENT, state="GET /: handler running"),
            OpenConnection(client_address="", state="idle"),
        ),
        stack="Thread 1\n  line 2",
    )
    assert str(report).splitlines() == [
        "stopped by 'kill' in 1000.0 ms",
        "  open: 127.0.0.1:4711: GET /: handler running",
        "  open: unnamed client: idle",
        "  the process was at:",
        "  | Thread 1",
        "  |   line 2",
    ]


@pytest.mark.parametrize(
    "address, name",
    [
        (CLIENT, "127.0.0.1:4711"),
        (("::1", 4711, 0, 0), "::1:4711"),
        ("/tmp/socket", "/tmp/socket"),
        ("", "unnamed client"),
    ],
)
def test_a_diagnostic_names_its_client(address: tuple[str | int, ...] | str, name: str) -> None:
    assert str(Diagnostic(client_address=address, text="sent nonsense")) == f"{name}: sent nonsense"


def test_the_figures_of_a_server_that_runs() -> None:
    with TCPServer() as server:
        stats = server.stats()
    assert isinstance(stats, ServerStats)
    assert stats.rss > 1 << 20
    assert stats.cpu_seconds >= 0
    assert stats.fds > 3
    assert stats.threads >= 1
    assert stats.connections == 0
