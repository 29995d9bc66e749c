"""Servers in the cells of a notebook, whose kernel is interrupted, restarted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kit.matrix import Rows
from kit.scripts import eventually, last_line
from kit.servers import ServerUnderTest, fetch, refuses

rows = Rows("Launchers", __file__)
_row = partial(rows.add, limit=50)

_SECONDS = 30.0  # a limit for anything that is waited for


class _Notebook:
    """A kernel, and the cells that it runs."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.client = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=_SECONDS)

    def run(self, source: str) -> str:
        """Run a cell; returns its output. It must print nothing to stderr."""
        said = {"stdout": "", "stderr": ""}

        def hear(message: Any) -> None:
            if message["msg_type"] == "stream":
                said[message["content"]["name"]] += message["content"]["text"]

        reply = self.client.execute_interactive(source, output_hook=hear, timeout=_SECONDS)
        assert reply["content"]["status"] == "ok", reply["content"]
        assert said["stderr"] == "", last_line(said["stderr"])
        return said["stdout"].strip()

    def serve(self, sut: ServerUnderTest) -> int:
        """Start a server in a cell; returns its port."""
        self.run(_CELL.format(sut.name))
        return int(self.run("print(sut.port)"))


_CELL = """
import threading
from pathlib import Path
from kit.servers import SERVERS, fetch

release = threading.Event()

def answer(path):
    if path == "/slow":
        Path("entered").touch()
        release.wait(60)
    return path[::-1]

sut = SERVERS[{!r}]()
sut.start(answer)
"""


# It waits a moment at a time: an interrupt between Python's last look for one and the kernel's call
# that waits is not seen before that returns.
_SLOW_CELL = """
threading.Thread(target=fetch, args=(sut.port, "/slow")).start()
while not release.wait(0.05):
    pass
"""


@contextmanager
def _notebook() -> Iterator[_Notebook]:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        os.environ[name] = str(Path(name).absolute())
        Path(name).mkdir(exist_ok=True)
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # or it warns
    from jupyter_client.manager import KernelManager

    manager = KernelManager(transport="ipc")
    manager.start_kernel(stdout=subprocess.DEVNULL, stderr=Path("stderr").open("wb"))  # noqa: SIM115
    try:
        notebook = _Notebook(manager)
        yield notebook
        notebook.client.stop_channels()
    finally:
        manager.shutdown_kernel(now=manager.is_alive() and sys.exc_info()[0] is not None)
        manager.cleanup_resources()


@_row("a notebook's cells")
def notebook_cells(sut: ServerUnderTest) -> None:
    with _notebook() as notebook:
        port = notebook.serve(sut)
        assert notebook.run("print(fetch(sut.port, '/cell'))") == "llec/"
        assert fetch(port, "/outside") == "edistuo/"  # while no cell runs
        notebook.run("sut.stop()")
        assert notebook.run("import sys; print('__main__' in sys.modules)") == "True"


@_row("a notebook's cell that starts a server runs again")
def notebook_again(sut: ServerUnderTest) -> None:
    with _notebook() as notebook:
        first = notebook.serve(sut)
        second = notebook.serve(sut)
        notebook.run("import gc; collected = gc.collect()")
        assert eventually(lambda: refuses(first)), "the first one still serves"
        assert fetch(second, "/again") == "niaga/"
        notebook.run("sut.stop()")


@_row("a notebook's top-level await", peers=False)
def notebook_await(sut: ServerUnderTest) -> None:
    source = """
import asyncio
from sidestage import HTTPServer
from kit.servers import fetch

async def answer(request):
    await asyncio.sleep(0)
    return f"{asyncio.get_running_loop() is loop} {request.path}"

loop = asyncio.get_running_loop()
async with HTTPServer(handler=answer) as server:
    print(await asyncio.to_thread(fetch, server.port, "/await"))
"""
    with _notebook() as notebook:
        for _ in range(2):
            assert notebook.run(source) == "True /await"


@_row("a notebook is interrupted while a handler runs")
def notebook_interrupted(sut: ServerUnderTest) -> None:
    with _notebook() as notebook:
        port = notebook.serve(sut)
        # Else the kernel aborts what comes while it gets over the error, as it says itself.
        cell = notebook.client.execute(_SLOW_CELL, stop_on_error=False)
        assert eventually(Path("entered").exists)
        notebook.manager.interrupt_kernel()
        while (reply := notebook.client.get_shell_msg(timeout=_SECONDS)) is not None:
            if reply["parent_header"]["msg_id"] == cell:
                break
        assert reply["content"]["ename"] == "KeyboardInterrupt", reply["content"]
        notebook.run("release.set()")
        assert fetch(port, "/after") == "retfa/"
        notebook.run("sut.stop()")


@_row("a notebook's kernel restarts and ends while a server runs")
def notebook_ends(sut: ServerUnderTest) -> None:
    with _notebook() as notebook:
        port = notebook.serve(sut)
        notebook.manager.restart_kernel()
        notebook.client.wait_for_ready(timeout=_SECONDS)
        assert eventually(lambda: refuses(port), 1.0), "the first one still serves"
        port = notebook.serve(sut)
        os.kill(notebook.manager.provisioner.pid, signal.SIGKILL)
        assert eventually(lambda: refuses(port), 1.0), "the second one still serves"
    with _notebook() as notebook:
        port = notebook.serve(sut)
    assert eventually(lambda: refuses(port), 1.0), "the third one still serves"


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
