"""Servers with TLS where the test forks, patches or is divided: as without it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.forks import run_in_copy
from kit.matrix import Rows
from kit.secure_requests import WAIT, ask, ask_outside
from kit.servers import Sidestage
from kit.suite import LIMIT, Suite

rows = Rows("TLS", __file__)


def start(answer: Callable[[str], str] = lambda path: path) -> Any:
    """A server with TLS."""
    from sidestage import HTTPServer

    return HTTPServer(handler=lambda request: answer(request.path), tls=True).start()


def use(answer: Callable[[str], str] = lambda path: path, wanted: str = "/alive") -> None:
    """Two servers, one after the other, so that the second may get the process of the first."""
    for _ in range(2):
        server = start(answer)
        assert ask(server) == wanted
        assert server.wait_for(1)[0].tls.version == "TLSv1.3"
        assert server.stop().clean


# Forks -------------------------------------------------------------------------------------------


@rows.add("a forked copy is a client", "-W", "error", peers=False)
def a_copy_is_a_client(sut: Sidestage) -> None:
    server = start()
    before = server.ca_file
    run_in_copy(lambda: ask(server, "/copy"))
    run_in_copy(lambda: ask_outside(server, "/copy"))
    assert server.ca_file == before
    assert ask_outside(server) == "/alive"  # the end of the copies has not removed its file
    assert [request.path for request in server.received] == ["/copy", "/copy", "/alive"]
    server.stop()


@rows.add("a forked copy has a server of its own", "-W", "error", peers=False)
def a_copy_has_its_own(sut: Sidestage) -> None:
    server = start()
    run_in_copy(use)
    assert ask(server) == "/alive"
    server.stop()


@rows.add("a forked copy is the first to have one", "-W", "error", peers=False)
def a_copy_is_first(sut: Sidestage) -> None:
    sut.load()
    run_in_copy(use)
    use()


# Clocks ------------------------------------------------------------------------------------------


def _year(path: str) -> str:
    return time.strftime("%Y")


@rows.add("freezegun, before the first start", peers=False)
def frozen_before(sut: Sidestage) -> None:
    from freezegun import freeze_time

    with freeze_time("2012-01-14"):
        use(_year, "2012")
    use()


@rows.add("freezegun, while it serves", peers=False)
def frozen_meanwhile(sut: Sidestage) -> None:
    from freezegun import freeze_time

    server = start(_year)
    with freeze_time("2012-01-14"):
        assert ask(server) == "2012"
    assert ask(server) > "2020"
    server.stop()


@rows.add("time-machine, before the first start", peers=False)
def moved_before(sut: Sidestage) -> None:
    import time_machine

    with time_machine.travel("2012-01-14", tick=False):
        use(_year, "2012")
    use()


@rows.add("time-machine, while it serves", peers=False)
def moved_meanwhile(sut: Sidestage) -> None:
    import time_machine

    server = start(_year)
    with time_machine.travel("2031-01-14"):
        assert ask(server) == "2031"
    server.stop()


# gevent ------------------------------------------------------------------------------------------


def _patch_with_gevent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's own, that it patches late
        from gevent import monkey

        monkey.patch_all()


def use_greenlets(server: Any) -> None:
    """Clients are greenlets, which run while this one waits for the server."""
    import gevent

    clients = [gevent.spawn(ask, server, f"/{number}") for number in range(5)]
    server.wait_for(5)
    gevent.joinall(clients, timeout=WAIT, raise_error=True)
    assert [client.value for client in clients] == [f"/{number}" for number in range(5)]
    assert server.stop().clean


@rows.add("gevent, before the import", peers=False)
def gevent_first(sut: Sidestage) -> None:
    _patch_with_gevent()
    for _ in range(2):
        use_greenlets(start())


@rows.add("gevent, before the first start", peers=False)
def gevent_before_start(sut: Sidestage) -> None:
    sut.load()
    _patch_with_gevent()
    for _ in range(2):
        use_greenlets(start())


@rows.add("gevent, between start and request", peers=False)
def gevent_before_request(sut: Sidestage) -> None:
    server = start()
    _patch_with_gevent()
    use_greenlets(server)
    use_greenlets(start())


# Plugins of pytest -------------------------------------------------------------------------------

HEAD = """
from kit.secure_requests import ask, ask_outside
from sidestage import HTTPServer

@pytest.fixture
def server():
    with HTTPServer(handler=lambda request: request.path, tls=True) as server:
        yield server
"""

NO_SOCKETS = """
from pytest_socket import SocketBlockedError

def test_outside_client_passes(server):
    with pytest.raises(SocketBlockedError):
        socket.socket()
    assert ask_outside(server) == "/alive"
"""

LOOPBACK = """
def test_loopback_passes(server):
    assert ask(server) == "/alive"

@pytest.mark.sidestage(http_server={"tls": True})
def test_the_fixture_passes(http_server):
    http_server.expect("GET", "/a").reply("hello")
    assert ask(http_server, "/a") == "hello"
"""

FAKE_FILES = """
def test_start_inside_passes(fs, server):
    fs.create_file("/data/file", contents="fake")
    assert ask(server) == "/alive"
    assert os.listdir("/data") == ["file"]

def test_start_outside_passes(server, fs):
    assert ask(server) == "/alive"
    assert not os.path.exists(server.ca_file)  # in the file system of the test

def test_after_passes(server):
    assert ask(server) == "/alive"
    assert ask_outside(server) == "/alive"
"""

MANY = """
import threading

@pytest.mark.parametrize("number", range(20))
def test_each_has_its_own_and_passes(server, number):
    assert ask(server, f"/{number}") == f"/{number}"
    assert ask(server, f"/{number}") == f"/{number}"
    assert [request.path for request in server.received] == [f"/{number}"] * 2
    assert os.path.exists(server.ca_file)

def test_several_at_once_passes(server):
    got = []
    clients = [threading.Thread(target=lambda: got.append(ask(server))) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert got == ["/alive"] * 8
"""


def run_with(plugin: str, source: str, *options: str, tests: int = 0, **environment: str) -> None:
    """Run tests in a run of pytest that has a plugin."""
    suite = Suite(Sidestage(), plugin)
    count = suite.add_tests("secured", HEAD + source)
    suite.run_as_named(tests or count, *options, status=0, **environment)


for _name, _plugin, _source, _options in (
    ("pytest-socket, --disable-socket", "socket", NO_SOCKETS, ("--disable-socket",)),
    ("pytest-socket, --allow-hosts=127.0.0.1", "socket", LOOPBACK, ("--allow-hosts=127.0.0.1",)),
    ("pyfakefs", "fakefs", FAKE_FILES, ()),
):
    rows.add(_name, limit=LIMIT, peers=False)(
        lambda sut, given=(_plugin, _source, *_options): run_with(*given)
    )


@rows.add("xdist, four workers", limit=LIMIT, peers=False)
def divided(sut: Sidestage) -> None:
    run_with("xdist", MANY, "-n", "4", tests=21)


@rows.add("xdist, four workers that share an authority", limit=LIMIT, peers=False)
def divided_and_shared(sut: Sidestage) -> None:
    shared = Path("authority").resolve()
    run_with("xdist", MANY, "-n", "4", tests=21, SIDESTAGE_CA=str(shared))
    assert shared.is_dir()


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
