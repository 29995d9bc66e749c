"""Files for clients: nobody else may read them, and the process that made them removes them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kit.scripts import environment, run_script
from sidestage import TLS, HTTPServer
from sidestage.layers.tls import files


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def run_in(directory: Path, source: str) -> str:
    """The output of a script whose files go to ``directory``, which it leaves empty."""
    printed = run_script(f"import os\nos.environ['TMPDIR'] = {str(directory)!r}\n{source}")
    assert list(directory.iterdir()) == []
    return printed


def test_only_its_user_may_read_a_file() -> None:
    tls = TLS(client_auth="required")
    for path in (HTTPServer(tls=tls).ca_file, *tls.client_certificate("alice")):
        assert mode(path) == 0o600
        assert mode(Path(path).parent) == 0o700


@pytest.mark.parametrize("umask", ["0o000", "0o777"])
def test_the_umask_changes_nothing(umask: str, tmp_path: Path) -> None:
    printed = run_in(
        tmp_path,
        f"""
os.umask({umask})
from sidestage import HTTPServer
path = HTTPServer(tls=True).ca_file
print([oct(os.stat(one).st_mode & 0o777) for one in (path, os.path.dirname(path))])
print(open(path).read(11))
""",
    )
    assert printed == "['0o600', '0o700']\n-----BEGIN \n"


def test_nothing_is_left_at_the_end_of_the_process(tmp_path: Path) -> None:
    printed = run_in(
        tmp_path,
        """
from sidestage import TLS, HTTPServer
tls = TLS(client_auth="required")
with HTTPServer(tls=tls) as server:
    paths = [server.ca_file, *tls.client_certificate("alice")]
print(all(map(os.path.exists, paths)), len(set(paths)), len(os.listdir(os.environ["TMPDIR"])))
""",
    )
    assert printed == "True 3 1\n"


def test_nothing_is_left_by_a_process_that_wants_no_file(tmp_path: Path) -> None:
    run_in(tmp_path, "from sidestage import HTTPServer\nHTTPServer(tls=True).start().stop()")


FORKED = """
from sidestage import HTTPServer
import sys
server = HTTPServer(tls=True)
path = server.ca_file
pid = os.fork()
if pid == 0:
    assert server.ca_file == HTTPServer(tls=True).ca_file == path
    {end}
os.waitpid(pid, 0)
print(os.path.exists(path))
"""


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()"])
def test_the_end_of_a_forked_copy_removes_nothing(end: str, tmp_path: Path) -> None:
    assert run_in(tmp_path, FORKED.format(end=end)) == "True\n"


def test_nothing_is_left_by_a_process_that_multiprocessing_has_forked(tmp_path: Path) -> None:
    printed = run_in(
        tmp_path,
        """
import multiprocessing
from sidestage import HTTPServer

def work():
    print(os.path.exists(HTTPServer(tls=True).ca_file), flush=True)

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
print(os.listdir(os.environ["TMPDIR"]))
""",
    )
    assert printed == "True\n[]\n"


def test_a_copy_that_outlives_the_original_makes_files_of_its_own(tmp_path: Path) -> None:
    source = f"""
import os, sys
os.environ['TMPDIR'] = {str(tmp_path)!r}
from sidestage import HTTPServer
server = HTTPServer(tls=True)
path = server.ca_file
pem = open(path).read()
if os.fork() == 0:
    os.read(0, 1)  # until the original has ended
    assert not os.path.exists(path)
    assert HTTPServer(tls=True).ca_file != path
    assert open(server.ca_file).read() == pem
    print("good", flush=True)
    sys.exit()
"""
    running = subprocess.Popen(
        [sys.executable, "-c", source],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    running.wait(30)
    output, _ = running.communicate(b"x", 30)  # ends when the copy does
    assert output == b"good\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_removed_is_written_again() -> None:
    server = HTTPServer(tls=True)
    Path(server.ca_file).unlink()
    assert Path(server.ca_file).read_bytes() == server.tls.trusted()  # type: ignore[union-attr]


def test_a_directory_that_cannot_be_used_is_passed_over(tmp_path: Path) -> None:
    for wrong in ("relative", str(tmp_path / "missing")):
        printed = run_script(
            f"""
            import os
            os.environ.update(TMPDIR={wrong!r}, TEMP={str(tmp_path)!r})
            from sidestage import HTTPServer
            print(HTTPServer(tls=True).ca_file)
            """
        )
        assert printed.startswith(f"{tmp_path}/sidestage-tls-")


def test_no_directory_at_all_is_said_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files.system, "mkdir", refuse)
    with pytest.raises(PermissionError, match="set TMPDIR to one that is writable"):
        files._make_directory()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.system, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        files.write(f"{tmp_path}/ca.pem", b"data")
    assert list(tmp_path.iterdir()) == []
