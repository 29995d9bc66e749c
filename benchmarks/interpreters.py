"""Milliseconds of what needs a new interpreter: imports, first starts, a run of pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import servers

import sidestage

_PACKAGES = str(Path(sidestage.__file__).resolve().parents[1])
_PLUGIN = "sidestage.pytest_plugin"
_FREE_PORT = "{port}"

_TIMED = """
import time
began = time.perf_counter()
{imports}
imported = time.perf_counter()
{start}
started = time.perf_counter()
print((imported - began) * 1000, (started - imported) * 1000, flush=True)
{stop}
"""

_TEST = """
import time
from sidestage import HTTPServer

time.sleep({collecting})

def test_first():
    began = time.perf_counter()
    with HTTPServer():
        print("started in", (time.perf_counter() - began) * 1000)
"""


@dataclass(frozen=True)
class Program:
    """A program for a new interpreter: its imports, its start and its stop."""

    imports: str
    start: str = ""
    stop: str = ""
    against: str = ""  # the Sidestage program it is compared with


IMPORTS = {
    "`import sidestage`": Program("import sidestage"),
    "`from sidestage import HTTPServer`": Program("from sidestage import HTTPServer"),
}

OURS = {
    "HTTPServer": Program(
        "from sidestage import HTTPServer", "server = HTTPServer().start()", "server.stop()"
    ),
    "SMTPServer": Program(
        "from sidestage import SMTPServer", "server = SMTPServer().start()", "server.stop()"
    ),
}

PEERS = {
    "ThreadingHTTPServer in a thread": Program(
        "import threading\nfrom http.server import BaseHTTPRequestHandler, ThreadingHTTPServer",
        "server = ThreadingHTTPServer(('127.0.0.1', 0), BaseHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, args=(0.01,)).start()",
        "server.shutdown()",
        against="HTTPServer",
    ),
    "pytest-httpserver": Program(
        "from pytest_httpserver import HTTPServer",
        "server = HTTPServer(port=0)\nserver.start()",
        against="HTTPServer",
    ),
    "aiosmtpd Controller": Program(
        "from aiosmtpd.controller import Controller\nfrom aiosmtpd.handlers import Sink",
        f"server = Controller(Sink(), hostname='127.0.0.1', port={_FREE_PORT})\nserver.start()",
        "server.stop()",
        against="SMTPServer",
    ),
}


def bare() -> float:
    """Milliseconds of an interpreter that does nothing, from start to exit."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


def timed(program: Program) -> tuple[float, float]:
    """Milliseconds of the program's imports and its start, without a pool."""
    code = _TIMED.format(imports=program.imports, start=program.start, stop=program.stop)
    output = _python("-c", code.replace(_FREE_PORT, str(servers.free_port())), SIDESTAGE_POOL="0")
    imports, start = output.split()
    return float(imports), float(start)


def first_under_pytest(collecting: float) -> float:
    """Milliseconds of the first start in a run of pytest with one test and the plugin.

    ``collecting`` (seconds) is how long its module takes to import, beside Sidestage: it stands
    for what a suite imports and collects before its first test.
    """
    installed = any(entry.value == _PLUGIN for entry in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", _PLUGIN)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "test_first.py")
        path.write_text(_TEST.format(collecting=collecting))
        arguments = ("-m", "pytest", "-s", "-p", "no:cacheprovider", *plugin, str(path))
        output = _python(*arguments, SIDESTAGE_POOL="1")
    found = re.search(r"started in ([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def _python(*arguments: str, **environment: str) -> str:
    settings = {**os.environ, "PYTHONPATH": _PACKAGES, **environment}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled
    run = subprocess.run(
        [sys.executable, *arguments], env=settings, check=True, text=True, stdout=subprocess.PIPE
    )
    return run.stdout
