"""Errors of handlers: each is told once, and equal ones together."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest

from kit.web import fetch, fetch_quietly
from sidestage import HTTPRequest, HTTPServer
from sidestage.journal.failures import MOST, Failures, attach


def lineno(function: Any) -> int:
    """The number of the line after that of ``def``."""
    return int(function.__code__.co_firstlineno) + 1


def want_csv(request: HTTPRequest) -> None:
    raise AssertionError("want csv")


class TestEqualErrors:
    def test_are_told_once_with_their_count(self) -> None:
        server = HTTPServer(handler=want_csv).start()
        for number in range(4):
            fetch_quietly(f"{server.url}/{number}")
        with pytest.raises(AssertionError, match="want csv") as caught:
            server.stop()
        assert caught.value is server.errors[0]
        where, count = caught.value.__notes__
        assert "for GET /0 from" in where
        assert count == "raised 4 times"

    def test_stay_in_the_errors_of_the_server(self) -> None:
        server = HTTPServer(handler=want_csv).start()
        for _ in range(3):
            fetch_quietly(server.url)
        with pytest.raises(AssertionError):
            server.raise_errors()
        assert [str(error) for error in server.errors] == ["want csv"] * 3
        server.stop()

    def test_are_those_of_one_line(self) -> None:
        def handler(request: HTTPRequest) -> None:
            if request.path == "/other":
                raise AssertionError("want csv")
            want_csv(request)

        server = HTTPServer(handler=handler).start()
        for path in ("/a", "/other", "/b"):
            fetch_quietly(server.url + path)
        with pytest.raises(ExceptionGroup) as caught:
            server.stop()
        assert str(caught.value).startswith("3 errors (2 different ones) in the handlers of HTTP")
        assert list(caught.value.exceptions) == list(server.errors[:2])

    def test_a_second_time_are_told_again(self) -> None:
        with pytest.raises(AssertionError), HTTPServer(handler=want_csv) as server:
            fetch_quietly(server.url)
            with pytest.raises(AssertionError):
                server.raise_errors()
            fetch_quietly(server.url)

    def test_of_an_error_that_cannot_be_shown(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise ValueError("no text")

        failures = Failures()
        for _ in range(2):
            failures.add(Unprintable(), "")
        assert isinstance(failures.new_error("it", with_death=False), Unprintable)

    def test_that_are_too_many_to_keep_are_counted(self) -> None:
        failures = Failures()
        for _ in range(MOST + 5):
            failures.add(ValueError("again"), "")
        error = failures.new_error("it", with_death=False)
        assert isinstance(error, ValueError)
        assert error.__notes__[-2:] == [
            "raised 1,000 times",
            "and 5 more errors, which were not kept",
        ]
        assert failures.new_error("it", with_death=False) is None


class TestTheNoteOnAFailingBody:
    def test_is_short(self) -> None:
        with (
            pytest.raises(urllib.error.HTTPError) as caught,
            HTTPServer(handler=want_csv) as server,
        ):
            for _ in range(3):
                fetch_quietly(server.url)
            fetch(server.url + "/last")
        [note] = caught.value.__notes__
        first, error, request, count, place = note.splitlines()
        assert first == "A server also reported:"
        assert error == "AssertionError: want csv"
        assert request.startswith("raised by the handler of HTTPServer at http:")
        assert count == "raised 4 times"
        assert place == f"at {__file__}:{lineno(want_csv)}, in want_csv"

    def test_has_an_end(self) -> None:
        error = KeyError("the body's own")
        attach(error, ExceptionGroup("many", [ValueError("x\n" * 5000) for _ in range(50)]))
        [note] = error.__notes__
        assert len(note.splitlines()) < 80
        assert note.endswith("and 45 more errors")
