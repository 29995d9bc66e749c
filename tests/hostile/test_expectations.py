"""Expectations in a test process that is patched, forks, or runs its tests in many processes.

The server's process matches, replies and counts, so it does not notice any of that. What has to
come back to the test does so as well: callables, ``where``, held requests, counts, and what is told
of a request that was unexpected or did not come.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest

from kit.forks import run_in_copy
from kit.matrix import Rows
from kit.processes import raised
from kit.servers import Clock, OutsideClient, ServerUnderTest, fetch
from kit.suite import LIMIT, Suite

rows = Rows("Expectations", __file__)

Fetch = Callable[[int, str], str]
SOON = 5.0  # seconds: far more than any wait here takes, and far less than for ever


# What is done with expectations ------------------------------------------------------------------


def use(client: Fetch = fetch) -> None:
    """All that a test does with expectations, each part with a server of its own."""
    meet(client)
    hold(client)
    tell_what_is_unmet()
    tell_what_is_unexpected(client)


def meet(client: Fetch) -> None:
    """Data, a delay, a callable and a ``where`` answer, and what met them is counted."""
    from sidestage import HTTPServer, WaitTimeout

    with HTTPServer() as server:
        data = server.expect("GET", "/data/{number:int}", times=2)
        data.reply("one").reply("two", delay=0.05)
        called = server.expect("GET", "/called", where=lambda request: "x" not in request.query)
        called.reply(lambda request: request.path)
        assert client(server.port, "/data/1") == "one"
        assert client(server.port, "/data/2") == "two"
        assert client(server.port, "/called") == "/called"
        data.wait(2, timeout=SOON)
        assert [request.params for request in data.requests] == [{"number": 1}, {"number": 2}]
        assert called.count == 1
        began = Clock.monotonic()
        raised(WaitTimeout, lambda: called.wait(2, timeout=0.2))
        assert 0.2 <= Clock.monotonic() - began < SOON


def hold(client: Fetch) -> None:
    """A held request waits until the test has taken and answered it."""
    from sidestage import HTTPServer

    with HTTPServer() as server:
        held = server.expect("GET", "/held").hold()
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(client(server.port, "/held")))
        thread.start()
        call = held.take(timeout=SOON)
        assert answers == []
        call.reply("taken")
        thread.join(SOON)
        assert answers == ["taken"]


def tell_what_is_unmet() -> None:
    """The error says what did not come, and at which line it was expected."""
    from sidestage import HTTPServer, UnmetExpectation

    def serve() -> None:
        with HTTPServer() as server:
            server.expect("GET", "/never")

    told = str(raised(UnmetExpectation, serve))
    assert "GET /never" in told
    assert "test_expectations.py:" in told


def tell_what_is_unexpected(client: Fetch) -> None:
    """The client gets a 404, and the error says what came, and what was nearest."""
    from sidestage import HTTPServer, UnexpectedRequest

    def serve() -> None:
        with HTTPServer() as server:
            server.allow("GET", "/tea").reply("hot")
            assert "404" in str(raised(AssertionError, lambda: client(server.port, "/coffee")))

    told = str(raised(UnexpectedRequest, serve))
    assert "GET /coffee" in told
    assert "/tea" in told


# Patches -----------------------------------------------------------------------------------------


def use_under(patch: Callable[[], AbstractContextManager[Any]], client: Fetch = fetch) -> None:
    """Use expectations under a patch, then without it, then under it to the end of the process."""
    with patch():
        use(client)
    use(client)
    patch().__enter__()
    use(client)


@rows.add("freezegun", peers=False)
def freezegun(sut: ServerUnderTest) -> None:
    from freezegun import freeze_time

    sut.load()
    use_under(lambda: freeze_time("2012-01-14"))


@rows.add("freezegun, before the import", peers=False)
def freezegun_first(sut: ServerUnderTest) -> None:
    from freezegun import freeze_time

    use_under(lambda: freeze_time("2012-01-14"))


@rows.add("time-machine", peers=False)
def time_machine(sut: ServerUnderTest) -> None:
    import time_machine

    sut.load()
    use_under(lambda: time_machine.travel(0, tick=False))


@rows.add("pyfakefs", peers=False)
def pyfakefs(sut: ServerUnderTest) -> None:
    from pyfakefs.fake_filesystem_unittest import Patcher

    sut.load()
    use_under(Patcher)


@rows.add("pyfakefs, before the import", peers=False)
def pyfakefs_first(sut: ServerUnderTest) -> None:
    from pyfakefs.fake_filesystem_unittest import Patcher

    use_under(Patcher)


@rows.add("pytest-socket", peers=False)
def pytest_socket(sut: ServerUnderTest) -> None:
    from pytest_socket import disable_socket

    sut.load()
    with closing(OutsideClient()) as client:
        disable_socket()
        use(client.fetch)


@rows.add("gevent, before the import", peers=False)
def gevent_first(sut: ServerUnderTest) -> None:
    _patch_with_gevent()
    use_with_greenlets()


@rows.add("gevent, before the start", peers=False)
def gevent_before_start(sut: ServerUnderTest) -> None:
    sut.load()
    _patch_with_gevent()
    use_with_greenlets()


def _patch_with_gevent() -> None:
    import warnings

    with warnings.catch_warnings():  # it warns that it patches too late
        warnings.simplefilter("ignore")
        from gevent import monkey

        monkey.patch_all()


def use_with_greenlets() -> None:
    """Use expectations, also with clients that run only while this greenlet waits."""
    import gevent

    from sidestage import HTTPServer

    use()
    with HTTPServer() as server:
        tea = server.expect("GET", "/tea", times=5).reply(lambda request: request.path)
        clients = [gevent.spawn(fetch, server.port, "/tea") for _ in range(5)]
        tea.wait(5, timeout=SOON)
        gevent.joinall(clients, timeout=SOON, raise_error=True)
        assert [client.value for client in clients] == ["/tea"] * 5
        held = server.expect("GET", "/held").hold()
        client = gevent.spawn(fetch, server.port, "/held")
        held.take(timeout=SOON).reply("taken")
        assert client.get(timeout=SOON) == "taken"


# Forks -------------------------------------------------------------------------------------------


@rows.add("a copy is a client", "-W", "error", peers=False)
def a_copy_is_a_client(sut: ServerUnderTest) -> None:
    """Data and callables answer a copy, and the original counts what met them."""
    from sidestage import HTTPServer

    with HTTPServer() as server:
        data = server.expect("GET", "/data").reply("data")
        called = server.expect("GET", "/called").reply(lambda request: str(os.getpid()))
        owner = str(os.getpid())

        def ask() -> None:
            assert fetch(server.port, "/data") == "data"
            assert fetch(server.port, "/called") == owner

        run_in_copy(ask)
        assert data.count == called.count == 1


@rows.add("a copy leaves the server to the original", "-W", "error", peers=False)
def a_copy_leaves_them(sut: ServerUnderTest) -> None:
    """A copy that ends its ``with`` verifies nothing, and one that declares is told why not."""
    from sidestage import HTTPServer, StateError

    owner = os.getpid()
    with HTTPServer() as server:
        tea = server.expect("GET", "/tea").reply("hot")

        def declare() -> None:
            assert "forked copy" in str(raised(StateError, lambda: server.expect("GET", "/copy")))

        run_in_copy(declare)
        copy = os.fork()
        if copy == 0:
            return  # through the end of the ``with``, with the expectation unmet
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
        assert os.getpid() == owner
        assert fetch(server.port, "/tea") == "hot"
        assert tea.count == 1


@rows.add("a copy has expectations of its own", "-W", "error", peers=False)
def a_copy_has_its_own(sut: ServerUnderTest) -> None:
    from sidestage import HTTPServer

    with HTTPServer() as server:
        server.expect("GET", "/tea").reply("hot")
        run_in_copy(use)
        assert fetch(server.port, "/tea") == "hot"


# Under pytest ------------------------------------------------------------------------------------

TESTS = """
from sidestage import HTTPServer, UnexpectedRequest

@pytest.fixture(scope="session")
def shared(serve_session):
    server = serve_session(HTTPServer)
    server.allow("GET", "/health").reply("ok")
    return server

@pytest.fixture
def shop(http_server):
    http_server.allow("GET", "/health").reply("ok")
    return http_server

@pytest.mark.parametrize("number", range(10))
def test_met_passes(http_server, number):
    http_server.expect("GET", f"/{number}").reply(f"{number}")
    assert fetch(http_server.port, f"/{number}") == f"{number}"

@pytest.mark.parametrize("number", range(10))
def test_of_a_shared_server_passes(shared, number):
    shared.expect("GET", f"/{number}", times=1).reply(f"{number}")
    assert fetch(shared.port, f"/{number}") == f"{number}"
    assert fetch(shared.port, "/health") == "ok"

def test_of_a_fixture_passes(shop):
    shop.expect("GET", "/tea").reply("hot")
    assert fetch(shop.port, "/tea") == "hot"

def test_unmet_fails(http_server):
    http_server.expect("GET", "/tea", headers={"X-Why": "on purpose"})

def test_unmet_of_a_shared_server_fails(shared):
    shared.expect("GET", "/tea", headers={"X-Why": "on purpose"})

def test_unexpected_fails(http_server):
    http_server.allow("GET", "/tea", headers={"X-Why": "on purpose"})
    with pytest.raises(AssertionError, match="404"):
        fetch(http_server.port, "/tea")

def test_unexpected_by_a_shared_server_fails(shared):
    shared.allow("GET", "/tea", headers={"X-Why": "on purpose"})
    with pytest.raises(AssertionError, match="404"):
        fetch(shared.port, "/tea")

def test_nothing_is_left_passes(shared):
    with pytest.raises(AssertionError, match="404"):
        fetch(shared.port, "/tea")
    with pytest.raises(UnexpectedRequest, match="/health"):  # the only one left is the fixture's
        shared.verify()

@pytest.mark.xfail(reason="on purpose")
def test_unmet_xfails(http_server):
    http_server.expect("GET", "/tea")

def test_unmet_skips(http_server):
    http_server.expect("GET", "/tea")
    pytest.skip("on purpose")
"""


def run_suite(sut: ServerUnderTest, *options: str, **arguments: Any) -> None:
    suite = Suite(sut, **arguments)
    count = suite.add_tests("expectations", TESTS) + 2 * 9  # two have ten cases
    suite.run_as_named(count, *options)


@rows.add("pytest", limit=LIMIT, peers=False)
def under_pytest(sut: ServerUnderTest) -> None:
    run_suite(sut)


@rows.add("xdist, -n 2", limit=LIMIT, peers=False)
def under_xdist(sut: ServerUnderTest) -> None:
    run_suite(sut, "-n2")


@rows.add("all plugins that are installed", limit=LIMIT, peers=False)
def beside_all_plugins(sut: ServerUnderTest) -> None:
    run_suite(sut, all_plugins=True)


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
