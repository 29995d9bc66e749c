"""However the test's code is run, it runs once, and the server leaves nothing behind."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipapp
from functools import partial
from pathlib import Path
from typing import Any

from kit.matrix import Rows
from kit.scripts import SRC, last_line
from kit.servers import ServerUnderTest, fetch

rows = Rows("Launchers", __file__)
_row = partial(rows.add, limit=50)  # most run several interpreters

_SECONDS = 30.0  # for anything that is waited for
_HERE = Path(sys.executable).parent  # where `pytest` and its like are, too

# What is launched: it notes each time that it is run, by whomever.
_SOURCE = """
import os
import sys
from pathlib import Path

from kit.servers import SERVERS, fetch

with Path({ran!r}).open("a") as file:
    file.write("once ")


sut = SERVERS[{name!r}]()


def start():
    sut.start(lambda path: f"{{path}} is answered by {{os.getpid()}}")


def finish():
    assert fetch(sut.port, "/it") == f"/it is answered by {{os.getpid()}}"
    sut.stop()
    print("It works.", flush=True)


def main():
    start()
    finish()


"""


def _source(sut: ServerUnderTest, last: str) -> str:
    return _SOURCE.format(ran=str(Path("ran").absolute()), name=sut.name) + last + "\n"


def _script(sut: ServerUnderTest, name: str = "script.py", last: str = "main()") -> Path:
    """A script in the row's own directory, without a main guard."""
    path = Path(name)
    path.write_text(_source(sut, last))
    return path


def _run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed in time and run the code once."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        **{"stdin": None if "input" in options else subprocess.DEVNULL, **options},
    )
    said = last_line(done.stderr or done.stdout)
    assert done.returncode == 0, f"status {done.returncode}: {said}"
    ran = Path("ran")
    times = len(ran.read_text().split())
    assert times == 1, f"it ran {times} times"
    ran.unlink()
    return done


def _works(*command: object, **options: Any) -> None:
    """The process reports that it works, and prints nothing to stderr."""
    done = _run(*command, **options)
    assert done.stderr == "", last_line(done.stderr)
    assert done.stdout.splitlines().count("It works.") == 1, done.stdout


def _python(*arguments: object, **options: Any) -> None:
    _works(sys.executable, *arguments, **options)


# Python itself -----------------------------------------------------------------------------------


@_row("python script.py, without a main guard")
def script(sut: ServerUnderTest) -> None:
    _python(_script(sut))
    _python("-u", _script(sut))


@_row("python -c")
def command(sut: ServerUnderTest) -> None:
    _python("-c", _source(sut, "main()"))


@_row("python - < script.py")
def standard_input(sut: ServerUnderTest) -> None:
    with _script(sut).open() as file:
        _python("-", stdin=file)
    _python(input=_source(sut, "main()"))


@_row("python -m package")
def package(sut: ServerUnderTest) -> None:
    Path("package").mkdir()
    Path("package/__init__.py").touch()
    _script(sut, "package/__main__.py")
    _python("-m", "package")


@_row("a script's name is odd")
def odd_name(sut: ServerUnderTest) -> None:
    for name in ("a script", "naïve.script.v2", "-", "multiprocess.txt", "sidestage test.pyw"):
        _python(_script(sut, name).absolute())


@_row("exec, runpy and import")
def run_by_python(sut: ServerUnderTest) -> None:
    path = _script(sut)
    _python("-c", f"exec(open({str(path)!r}).read())")
    _python("-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')")
    _python("-c", "import runpy; runpy.run_module('script', alter_sys=True)")
    _python("-c", "import script")


@_row("a server that is used in an exit handler")
def exit_handler(sut: ServerUnderTest) -> None:
    _python(_script(sut, last="import atexit; start(); atexit.register(finish)"))


@_row("a server that is used when the main thread has ended")
def late_thread(sut: ServerUnderTest) -> None:
    last = """
import threading

def late():
    threading.main_thread().join()
    finish()

start()
threading.Thread(target=late).start()
"""
    _python(_script(sut, last=last))


@_row("a server that starts in an exit handler")
def exit_handler_starts(sut: ServerUnderTest) -> None:
    """With a handler only if Python can still start threads; 3.12.1 cannot."""
    last = """
import atexit, threading

def late():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        sut.start_canned()
        fetch(sut.port, "/it")
        sut.stop()
        print("It works.", flush=True)
    else:
        main()

atexit.register(late)
"""
    _python(_script(sut, last=last))


# Interpreters ------------------------------------------------------------------------------------


def _with_packages() -> dict[str, str]:
    """The environment for an interpreter without installed packages."""
    path = [os.environ["PYTHONPATH"], sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@_row("a link to the interpreter")
def link(sut: ServerUnderTest) -> None:
    Path("bin").mkdir()
    Path("bin/snake").symlink_to(sys.executable)
    _works("bin/snake", _script(sut), env=_with_packages())


@_row("a virtual environment's ./bin/python, and then chdir")
def relative_interpreter(sut: ServerUnderTest) -> None:
    venv.create("environment", symlinks=True)
    path = _script(sut, last="sut.load()\nos.chdir('/')\nmain()").absolute()
    _works("./bin/python", path, env=_with_packages(), cwd="environment")


@_row("python found on a relative PATH, and then chdir")
def relative_path(sut: ServerUnderTest) -> None:
    venv.create("environment", symlinks=True)
    path = _script(sut, last="sut.load()\nos.chdir('/')\nmain()")
    environment = {**_with_packages(), "PATH": os.path.join("environment", "bin")}  # noqa: PTH118
    # Before our code runs, CPython 3.14 warns that its own prefix is relative.
    python = 'exec python -W ignore::RuntimeWarning:site "$0"'
    _works("/bin/sh", "-c", python, path, env=environment)


# Other programs ----------------------------------------------------------------------------------


@_row("pytest")
def pytest_script(sut: ServerUnderTest) -> None:
    _test(_HERE / "pytest", "test_script.py", sut=sut)


@_row("python -m pytest")
def pytest_module(sut: ServerUnderTest) -> None:
    _test(sys.executable, "-m", "pytest", "test_script.py", sut=sut)


@_row("pytest.main()")
def pytest_main(sut: ServerUnderTest) -> None:
    source = "import pytest, sys; sys.exit(pytest.main(['test_script.py']))"
    _test(sys.executable, "-c", source, sut=sut)


def _test(*command: object, sut: ServerUnderTest) -> None:
    _script(sut, "test_script.py", last="def test_it():\n    main()")
    done = _run(*command, env={**os.environ, "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:asyncio"})
    assert "1 passed" in done.stdout
    assert "warning" not in done.stdout, done.stdout
    assert done.stderr == "", last_line(done.stderr)


@_row("python -m unittest")
def unittest(sut: ServerUnderTest) -> None:
    last = """
import unittest

class TestIt(unittest.TestCase):
    def test_it(self):
        main()
"""
    _script(sut, "test_script.py", last)
    done = _run(sys.executable, "-m", "unittest", "test_script")
    report = r"\.\n-+\nRan 1 test in [\d.]+s\n\nOK\n"
    assert re.fullmatch(report, done.stderr), last_line(done.stderr)
    assert done.stdout == "It works.\n"


@_row("coverage run")
def coverage(sut: ServerUnderTest) -> None:
    _works(_HERE / "coverage", "run", "--data-file=counted", _script(sut))
    _python("-m", "coverage", "run", "--parallel-mode", _script(sut))


@_row("python -m cProfile, trace, pdb")
def observed(sut: ServerUnderTest) -> None:
    path = _script(sut)
    _python("-m", "cProfile", "-o", "profile", path)
    _python("-m", "trace", "--count", "--coverdir=counted", path)
    _python("-m", "pdb", "-c", "continue", path, input="quit\n")


@_row("ipython script.py")
def ipython(sut: ServerUnderTest) -> None:
    Path("ipython").mkdir()
    home = {"IPYTHONDIR": str(Path("ipython").absolute())}
    _works(_HERE / "ipython", _script(sut), env={**os.environ, **home})


@_row("nohup, setsid, a shell's background")
def detached(sut: ServerUnderTest) -> None:
    path = _script(sut)
    _works("nohup", sys.executable, path)
    _works("setsid", "--wait", sys.executable, path)
    _works("/bin/sh", "-c", '"$0" "$1" & wait', sys.executable, path)


@_row("a zipapp")
def zipped(sut: ServerUnderTest) -> None:
    Path("app").mkdir()
    _script(sut, "app/__main__.py")
    zipapp.create_archive("app", "app.pyz")
    _python("app.pyz")


@_row("a zipapp that has Sidestage in it", peers=False)
def zipped_whole(sut: ServerUnderTest) -> None:
    last = "import sidestage\nassert 'app.pyz' in sidestage.__file__\nmain()"
    shutil.copytree(Path(SRC, "sidestage"), "app/sidestage")
    _script(sut, "app/__main__.py", last)
    zipapp.create_archive("app", "app.pyz", compressed=True)
    _python("app.pyz")


# At a prompt -------------------------------------------------------------------------------------


class _Prompt:
    """An interpreter at a terminal."""

    def __init__(self, *arguments: object) -> None:
        self._fd, theirs = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "PYTHON_COLORS": "0", "PYTHON_HISTORY": "history"},
            start_new_session=True,
        )
        os.close(theirs)

    def read(self) -> str:
        """Read up to the next prompt, or to the end."""
        came = ""
        while ">>> " not in came:
            assert select.select([self._fd], [], [], _SECONDS)[0], f"no prompt after {came!r}"
            try:
                came += os.read(self._fd, 4096).decode()
            except OSError:  # the other end is closed
                break
        return came

    def enter(self, line: str) -> str:
        """Type a line; returns the output, including the echo."""
        os.write(self._fd, f"{line}\n".encode())
        said = self.read()
        assert "Traceback" not in said, said
        assert "Warning" not in said, said
        return said

    def leave(self) -> None:
        """End it."""
        self.enter("quit()")
        os.close(self._fd)
        assert self._process.wait(_SECONDS) == 0


@_row("python -i script.py")
def inspected(sut: ServerUnderTest) -> None:
    prompt = _Prompt("-i", _script(sut))
    assert "It works." in prompt.read()
    assert "It works." in prompt.enter("main()")
    prompt.leave()


@_row("lines typed at the prompt")
def typed(sut: ServerUnderTest) -> None:
    prompt = _Prompt("-q")
    prompt.read()
    prompt.enter("from kit.servers import SERVERS, fetch")
    prompt.enter(f"sut = SERVERS[{sut.name!r}]()")
    prompt.enter("sut.start(lambda path: path[::-1])")
    assert "morf/" in prompt.enter("fetch(sut.port, '/from')")
    port = int(prompt.enter("print('at', sut.port, '.')").split("at ")[-1].split(" .")[0])
    assert fetch(port, "/outside") == "edistuo/"  # while it waits for the next line
    prompt.enter("sut.stop()")
    prompt.leave()


test_row = rows.test()

if __name__ == "__main__":
    rows.main()
