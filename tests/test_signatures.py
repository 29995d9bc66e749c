"""What editors, ``help`` and type checkers show of each server: every option, by its name."""

from __future__ import annotations

import inspect
import os
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidestage import HTTPServer, Server, SMTPServer, TCPServer, UDPServer, classic

ROOT = Path(__file__).parent.parent
SERVERS = [HTTPServer, SMTPServer, TCPServer, UDPServer]
CLASSIC = [getattr(classic, name) for name in classic.__all__]
COMMON = inspect.signature(Server).parameters


@pytest.mark.parametrize("kind", [*SERVERS, *CLASSIC])
def test_each_server_has_every_option_with_its_default(kind: type[Any]) -> None:
    taken = inspect.signature(kind).parameters
    assert not any(one.kind is one.VAR_KEYWORD for one in taken.values())
    options = {name: one for name, one in COMMON.items() if one.kind is one.KEYWORD_ONLY}
    assert len(options) == 7
    assert {name: taken[name] for name in options} == options


@pytest.mark.parametrize("kind", SERVERS)
def test_help_and_the_reference_show_every_option(kind: type[Any]) -> None:
    shown = pydoc.plain(pydoc.render_doc(kind))
    reference = (ROOT / "docs" / "reference.md").read_text()
    for name in inspect.signature(kind).parameters:
        assert f"{name}:" in shown
        assert f"| `{name}` |" in reference


WRONG = """
from sidestage import HTTPServer, Serve, SMTPServer, TCPServer, UDPServer
from sidestage.classic import TestTCPServer
HTTPServer(head_limt=1)
SMTPServer(head_limit=1)
TCPServer(keep="1")
UDPServer(size_limit=1)
TestTCPServer(("", 0), print, nam="x")
HTTPServer().keep = "1"
def test(serve: Serve) -> None:
    serve(HTTPServer, head_limt=1)
    serve(SMTPServer).head_limit
    shop = serve(HTTPServer, unexpected="no")
    shop.expect("GET", "/", jsn=1)
    shop.expect("GET", "/", times="2")
    shop.expect("GET", "/").reply("a", early=True).taken()
"""
LINES = [4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]
RIGHT = """
from sidestage import HTTPServer, Serve, SMTPServer, TCPServer, UDPServer
from sidestage.classic import TestTCPServer
HTTPServer(head_limit=1, name="a", keep=1, handler_timeout=None)
SMTPServer(size_limit=1, recipient_limit=5, backlog=3)
TCPServer(keep=1, fresh=True)
UDPServer(stop_timeout=1)
TestTCPServer(("", 0), print, name="x")
HTTPServer().handler_timeout = None
def test(serve: Serve) -> int:
    shop = serve(HTTPServer, head_limit=1)
    order = shop.expect(("GET", "POST"), "/a", json={"n": int}, times=range(1, 4)).reply("x")
    line: str = order.hold().take().request.method + order.wait(2)[0].path
    path: str = shop.wait_for(lambda request: request.path == "/")[0].path
    return serve(SMTPServer, size_limit=len(path)).size_limit
"""


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_see_a_wrong_name_or_kind(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker, exc_type=ImportError)
    wrong, right = tmp_path / "wrong.py", tmp_path / "right.py"
    wrong.write_text(WRONG)
    right.write_text(RIGHT)
    options = {"mypy": ["--cache-dir", str(tmp_path)], "pyright": ["--pythonpath", sys.executable]}
    done = subprocess.run(
        [sys.executable, "-m", checker, *options[checker], str(wrong), str(right)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    found = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(found) == len(LINES), done.stdout + done.stderr
    for number, line in zip(LINES, found, strict=True):
        assert f"wrong.py:{number}:" in line
