"""The 25 tests that a newcomer writes, with pytest-httpserver and with Sidestage: ours no longer.

``make bench`` measures them; this says that they go on being the same tests, and pass.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.pytest_runs import PLUGIN, QUIET
from kit.scripts import environment

_FOLDER = Path(__file__).parents[2] / "benchmarks" / "newcomer"
_OURS, _THEIRS = _FOLDER / "test_sidestage.py", _FOLDER / "test_httpserver.py"


def lengths(module: Path) -> dict[str, int]:
    """The tests of a module, in their order, with their number of lines that are not blank."""
    _, *found = re.split(r"^def (?=test_)", module.read_text(), flags=re.MULTILINE)
    return {
        one.partition("(")[0]: sum(map(bool, map(str.strip, one.splitlines()))) for one in found
    }


def test_both_have_the_same_25() -> None:
    assert list(lengths(_OURS)) == list(lengths(_THEIRS))
    assert len(lengths(_OURS)) == 25


def test_ours_are_no_longer() -> None:
    ours, theirs = lengths(_OURS), lengths(_THEIRS)
    assert sum(ours.values()) < sum(theirs.values())
    assert len(_OURS.read_text()) < len(_THEIRS.read_text())


@pytest.mark.parametrize("module", [_OURS, _THEIRS], ids=["ours", "theirs"])
def test_all_pass(module: Path, tmp_path: Path) -> None:
    shutil.copytree(_FOLDER, tmp_path, dirs_exist_ok=True)
    options: tuple[str, ...] = ()
    if module is _THEIRS:
        pytest.importorskip("pytest_httpserver")
        options = ("-p", "pytest_httpserver.pytest_plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, *QUIET, *options, module.name],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "25 passed" in done.stdout, done.stdout + done.stderr
