"""Type checkers accept what users write, and report what is wrong, in the line where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.scripts import SRC

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"

Errors = dict[tuple[str, int], str]  # by file and line


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "MYPYPATH": SRC, "PYTHONPATH": SRC}
    done = subprocess.run(
        [sys.executable, "-m", *command, str(RIGHT), str(WRONG)],
        env=environment,
        cwd=folder,  # without a configuration: that of this project leaves these files out
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.stdout


def mypy(folder: Path) -> Errors:
    options = ("--strict", "--follow-imports=silent", "--output=json", "--cache-dir=cache")
    found = [json.loads(line) for line in run(folder, "mypy", *options).splitlines()]
    return {(Path(error["file"]).name, error["line"]): error["message"] for error in found}


def pyright(folder: Path) -> Errors:
    printed = run(folder, "pyright", "--outputjson", "--pythonpath", sys.executable)
    return {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"]
        for error in json.loads(printed)["generalDiagnostics"]
        if error["severity"] == "error"
    }


@pytest.mark.timeout(300)  # they read all that is imported, and pyright starts node
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_is_wrong_is_reported_and_nothing_else(
    checker: Callable[[Path], Errors], tmp_path: Path
) -> None:
    name = checker.__name__
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    lines = WRONG.read_text().splitlines()
    wanted = {
        (WRONG.name, number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")
    }
    found = checker(tmp_path)
    assert found.keys() == wanted, found
