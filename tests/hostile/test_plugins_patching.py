"""Plugins that patch sockets, processes, files or clocks change nothing."""

from __future__ import annotations

import pytest

from kit.matrix import Rows
from kit.servers import ServerUnderTest, Sidestage
from kit.suite import ASYNCIO_SCOPE, LIMIT, Suite

rows = Rows("Beside other plugins", __file__)


def run_patched(sut: ServerUnderTest, plugin: str, source: str, *options: str) -> None:
    """Run tests that patch the process: with a pool, without one, and without the plugin.

    Without the plugin, all that a server needs is imported under the patch.
    """
    suite = Suite(sut, plugin)
    tests = suite.add_tests("patched", source)
    suite.run_as_named(tests, *options, status=0)
    if suite.is_sidestage:
        suite.run_as_named(tests, *options, status=0, SIDESTAGE_POOL="0")
        bare = Suite(sut, plugin, fixtures=False)
        bare.run_as_named(bare.add_tests("patched", source), *options, status=0)


NO_SOCKETS = """
from pytest_socket import SocketBlockedError
from kit.servers import OutsideClient

def test_outside_client_passes(serve):
    with pytest.raises(SocketBlockedError):
        socket.socket()
    client = OutsideClient()
    try:
        assert client.fetch(serve(lambda path: path), "/a") == "/a"
    finally:
        client.close()
"""

LOOPBACK = """
from pytest_socket import SocketConnectBlockedError

def test_loopback_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 80))
"""

UNIX_SOCKETS = """
from pytest_socket import SocketBlockedError
from sidestage import HTTPServer

def test_unix_socket_passes(tmp_path):
    path = str(tmp_path / "socket")
    with HTTPServer(path, lambda request: request.path):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET /a HTTP/1.0\\r\\n\\r\\n")
            assert client.makefile().read().endswith("/a")
    with pytest.raises(SocketBlockedError):
        socket.socket()
"""


@rows.add("pytest-socket, --disable-socket", limit=LIMIT)
def no_sockets(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", NO_SOCKETS, "--disable-socket")


@rows.add("pytest-socket, --allow-hosts=127.0.0.1", limit=LIMIT)
def only_loopback(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", LOOPBACK, "--allow-hosts=127.0.0.1")


@rows.add("pytest-socket, --allow-unix-socket", limit=LIMIT, peers=False)
def only_unix_sockets(sut: ServerUnderTest) -> None:
    run_patched(sut, "socket", UNIX_SOCKETS, "--disable-socket", "--allow-unix-socket")
    suite = Suite(sut, "socket", "asyncio")
    tests = suite.add_tests("ours", UNIX_COROUTINES)
    suite.run_as_named(tests, "--disable-socket", "--allow-unix-socket", *ASYNCIO_SCOPE, status=0)


UNIX_COROUTINES = """
import asyncio
from sidestage import HTTPServer

@pytest.mark.asyncio
async def test_unix_socket_passes(tmp_path):
    path = str(tmp_path / "socket")
    async def handler(request):
        return request.path
    async with HTTPServer(path, handler):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
        assert (await reader.read()).endswith(b"/a")
        writer.close()
        await writer.wait_closed()
"""

FAKE_PROCESSES = """
import subprocess

def check(fp, port):
    fp.register(["git", "status"], stdout="fake")
    assert fetch(port, "/a") == "/a"
    assert subprocess.run(["git", "status"], capture_output=True).stdout.strip() == b"fake"
    assert fetch(port, "/b") == "/b"

@pytest.fixture
def port(serve):
    return serve(lambda path: path)

def test_start_inside_passes(fp, port):
    check(fp, port)

def test_start_outside_passes(port, fp):
    check(fp, port)
"""


@rows.add("pytest-subprocess", limit=LIMIT)
def fake_processes(sut: ServerUnderTest) -> None:
    run_patched(sut, "pytest-subprocess", FAKE_PROCESSES)


FAKE_FILES = """
def check(fs, port):
    fs.create_file("/data/file", contents="fake")
    assert os.listdir("/data") == ["file"]
    assert fetch(port) == "fake"

@pytest.fixture
def port(serve):
    return serve(lambda path: pathlib.Path("/data/file").read_text())

def test_start_inside_passes(fs, port):
    check(fs, port)

def test_start_outside_passes(port, fs):
    check(fs, port)

def test_after_passes(serve):
    assert not os.path.exists("/data/file")
    assert fetch(serve(lambda path: path), "/a") == "/a"
"""


@rows.add("pyfakefs", limit=LIMIT)
def fake_files(sut: ServerUnderTest) -> None:
    run_patched(sut, "fakefs", FAKE_FILES)


FROZEN = """
import datetime
from freezegun import freeze_time

@freeze_time("2012-01-14")
def test_decorated_passes(serve):
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"

@freeze_time("2012-01-14")
class TestFrozen:
    def test_in_a_class_passes(self, serve):
        assert fetch(serve(lambda path: time.strftime("%Y"))) == "2012"

def test_in_the_middle_passes(serve):
    port = serve(lambda path: str(datetime.date.today()))
    with freeze_time("2012-01-14") as frozen:
        assert fetch(port) == "2012-01-14"
        frozen.tick(datetime.timedelta(days=2))
        assert fetch(port) == "2012-01-16"
    assert fetch(port) > "2020"
"""


OUR_FROZEN = """
from sidestage import HTTPServer, WaitTimeout

@freeze_time("2012-01-14")
def test_time_outs_passes():
    with HTTPServer() as server:
        with pytest.raises(WaitTimeout):
            server.wait_for(1, timeout=0.1)
"""


@rows.add("freezegun's decorator", limit=LIMIT)
def frozen(sut: ServerUnderTest) -> None:
    run_patched(sut, "", FROZEN + (OUR_FROZEN if sut.name == Sidestage.name else ""))


MOVED = """
import datetime

def test_moved_inside_passes(time_machine, serve):
    time_machine.move_to(datetime.datetime(2012, 1, 14), tick=False)
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"

def test_moved_passes(serve, time_machine):
    port = serve(lambda path: str(datetime.date.today()))
    time_machine.move_to("2012-01-14")
    assert fetch(port) == "2012-01-14"
    time_machine.move_to("2031-01-14")
    assert fetch(port) == "2031-01-14"

@pytest.mark.time_machine("2012-01-14")
def test_marked_passes(serve):
    assert fetch(serve(lambda path: str(datetime.date.today()))) == "2012-01-14"
"""


@rows.add("time-machine's fixture", limit=LIMIT)
def moved(sut: ServerUnderTest) -> None:
    run_patched(sut, "time_machine", MOVED)


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
