"""Tests and fixtures that are coroutines, under pytest-asyncio and anyio."""

from __future__ import annotations

import importlib.util

import pytest

from kit.matrix import Rows
from kit.servers import ServerUnderTest
from kit.suite import ASYNCIO_SCOPE, LIMIT, Suite

rows = Rows("Beside other plugins", __file__)


COROUTINES = """
import asyncio

<mark>
async def test_with_threads_passes(serve):
    port = serve(lambda path: path)
    assert await asyncio.to_thread(fetch, port, "/a") == "/a"

<mark>
async def test_with_streams_passes(serve):
    port = serve(lambda path: path)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /a HTTP/1.0\\r\\n\\r\\n")
    assert (await reader.read()).endswith(b"/a")
    writer.close()
    await writer.wait_closed()

def test_without_coroutines_passes(serve):
    assert fetch(serve(lambda path: path), "/a") == "/a"
"""

OUR_COROUTINES = """
import asyncio
from sidestage import HTTPServer, ServerManager, TCPServer

async def get(server, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.0\\r\\n\\r\\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode().partition("\\r\\n\\r\\n")[2]

<mark>
async def test_handler_on_the_loop_of_the_test_passes():
    loops = []
    async def handler(request):
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return request.path
    async with HTTPServer(handler=handler) as server:
        assert await get(server, "/a") == "/a"
    assert loops == [asyncio.get_running_loop()]

<mark>
async def test_fixture_passes(http_server):
    async def handler(request):
        await asyncio.sleep(0)
        return request.path
    http_server.handler = handler
    assert await get(http_server, "/a") == "/a"
    assert [request.path for request in http_server.received] == ["/a"]

<mark>
async def test_manager_passes():
    async def handler(connection):
        return b"hello"
    async with ServerManager(web=HTTPServer(), raw=TCPServer(handler=handler)) as manager:
        assert await get(manager["web"]) == ""
        reader, writer = await asyncio.open_connection("127.0.0.1", manager["raw"].port)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

<mark>
async def test_coroutine_handler_fails():
    async def handler(request):
        await asyncio.sleep(0)
        raise ValueError("on purpose")
    async with HTTPServer(handler=handler) as server:
        await get(server)

<mark>
async def test_plain_handler_fails(http_server):
    def handler(request):
        raise ValueError("on purpose")
    http_server.handler = handler
    await get(http_server)

<mark>
async def test_body_fails():
    async with HTTPServer() as server:
        await get(server)
        assert False, "on purpose"
"""

OUR_ASYNC_FIXTURES = """
import asyncio
import pytest_asyncio
from sidestage import HTTPServer
from test_ours import get

async def handler(request):
    assert asyncio.get_running_loop() is await_on[0]
    return request.path

await_on = []

@pytest_asyncio.fixture(scope="<scope>", loop_scope="<scope>")
async def server():
    await_on[:] = [asyncio.get_running_loop()]
    async with HTTPServer(handler=handler) as server:
        yield server

@pytest.mark.asyncio(loop_scope="<scope>")
@pytest.mark.parametrize("number", range(3))
async def test_loop_passes(server, number):
    assert await get(server, f"/{number}") == f"/{number}"

@pytest_asyncio.fixture(loop_scope="<scope>")
async def failing(server):
    def fail(request):
        raise ValueError("on purpose")
    async with HTTPServer(handler=fail) as failing:
        yield failing

@pytest.mark.asyncio(loop_scope="<scope>")
async def test_fixture_fails(failing):
    await get(failing)
"""


def _coroutines(suite: Suite, mark: str, *options: str, **environment: str) -> None:
    tests = suite.add_tests("coroutines", COROUTINES.replace("<mark>", mark))
    status = 0
    if suite.is_sidestage:
        tests += suite.add_tests("ours", OUR_COROUTINES.replace("<mark>", mark))
        status = 1
    suite.run_as_named(tests, "-W", "error", *options, status=status, **environment)


@rows.add("pytest-asyncio, auto mode", limit=LIMIT)
def asyncio_auto(sut: ServerUnderTest) -> None:
    _coroutines(Suite(sut, "asyncio"), "", "--asyncio-mode=auto", *ASYNCIO_SCOPE)


@rows.add("pytest-asyncio, strict mode", limit=LIMIT)
def asyncio_strict(sut: ServerUnderTest) -> None:
    mark = "@pytest.mark.asyncio"
    _coroutines(Suite(sut, "asyncio"), mark, "--asyncio-mode=strict", *ASYNCIO_SCOPE)


@rows.add("pytest-asyncio, servers in fixtures of each loop's scope", limit=LIMIT, peers=False)
def asyncio_scopes(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "asyncio")
    suite.add_tests("ours", OUR_COROUTINES.replace("<mark>", ""))
    for scope in ("function", "session"):
        suite.add_tests(scope, OUR_ASYNC_FIXTURES.replace("<scope>", scope))
    suite.run_as_named(8, "test_function.py", "test_session.py", "-W", "error", *ASYNCIO_SCOPE)


@rows.add("anyio on asyncio", limit=LIMIT)
def anyio_on_asyncio(sut: ServerUnderTest) -> None:
    suite = Suite(sut, "anyio")
    suite.extend_conftest("anyio_backend = pytest.fixture(lambda: 'asyncio')")
    _coroutines(suite, "@pytest.mark.anyio")


TRIO = """
import anyio, trio

@pytest.mark.anyio
async def test_plainly_passes(serve):
    port = serve(lambda path: path)
    assert await anyio.to_thread.run_sync(fetch, port, "/a") == "/a"
    assert trio.lowlevel.in_trio_run()
"""

OUR_TRIO = """
import anyio, trio
from sidestage import HTTPServer

async def get(port):
    async with await anyio.connect_tcp("127.0.0.1", port) as client:
        await client.send(b"GET /a HTTP/1.0\\r\\n\\r\\n")
        answer = b""
        with pytest.raises(anyio.EndOfStream):
            while True:
                answer += await client.receive()
        return answer

@pytest.mark.anyio
async def test_handlers_pass_and_so_passes():
    async def handler(request):
        return request.path
    with HTTPServer(handler=handler) as server:
        assert (await get(server.port)).endswith(b"/a")

@pytest.mark.anyio
async def test_handler_fails():
    def handler(request):
        raise ValueError("on purpose")
    with HTTPServer(handler=handler) as server:
        await get(server.port)

@pytest.mark.anyio
async def test_async_with_says_why_not_and_passes():
    with pytest.raises(Exception, match="asyncio"):
        async with HTTPServer():
            pass
"""

if importlib.util.find_spec("trio"):

    @rows.add("anyio on trio", limit=LIMIT)
    def anyio_on_trio(sut: ServerUnderTest) -> None:
        suite = Suite(sut, "anyio")
        suite.extend_conftest("anyio_backend = pytest.fixture(lambda: 'trio')")
        tests = suite.add_tests("trio", TRIO)
        if suite.is_sidestage:
            tests += suite.add_tests("ours", OUR_TRIO)
        suite.run_as_named(tests, "-W", "error", status=1 if suite.is_sidestage else 0)


test_row = pytest.mark.timeout(150)(rows.test())

if __name__ == "__main__":
    rows.main()
