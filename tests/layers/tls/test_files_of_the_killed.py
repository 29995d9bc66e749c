"""Files of a test process that is killed: processes of its servers remove them, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.scripts import all_gone, background, eventually, run_script
from sidestage import HTTPServer
from sidestage.child.bequest import remove
from sidestage.layers.tls import files

RUNNING = "server.start()"
STOPPED = "server.start(); server.stop()"
# The process that knew of the files has ended, and those that are left have served no TLS.
REPLACED = """
server.start()
os.kill(server.pid, signal.SIGKILL)
server = HTTPServer().start()
"""
COPIED = "server.start(); copy = os.fork() or (print(os.getpid(), flush=True), signal.pause())"

SIGKILL = "os.kill(os.getpid(), signal.SIGKILL)"
SIGTERM = "os.kill(os.getpid(), signal.SIGTERM)"
EXIT = "os._exit(1)"

SCRIPT = """
import os, signal
os.environ["TMPDIR"] = {directory!r}
from sidestage import TLS, HTTPServer
server = HTTPServer(tls=TLS(client_auth="required"))
print(server.ca_file, *server.tls.client_certificate("alice"), flush=True)
{life}
{end}
"""


def nothing_is_in(directory: Path) -> Callable[[], bool]:
    return lambda: not list(directory.iterdir())


@pytest.mark.parametrize("end", [SIGKILL, SIGTERM, EXIT])
@pytest.mark.parametrize("life", [RUNNING, STOPPED, REPLACED])
def test_nothing_is_left_by_a_process_that_is_killed(life: str, end: str, tmp_path: Path) -> None:
    with background(SCRIPT.format(directory=str(tmp_path), life=life, end=end)) as process:
        assert process.stdout is not None
        assert len(process.stdout.readline().split()) == 3
        assert process.wait(30)
        assert eventually(nothing_is_in(tmp_path))


def test_a_forked_copy_that_lives_on_keeps_nothing(tmp_path: Path) -> None:
    script = SCRIPT.format(directory=str(tmp_path), life=COPIED, end=SIGKILL)
    with background(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        copy = int(process.stdout.readline())
        try:
            process.wait(30)
            assert eventually(nothing_is_in(tmp_path))
        finally:
            os.kill(copy, 9)
        assert all_gone([copy], 5.0)


def test_a_forked_copy_that_is_killed_takes_nothing_from_the_original(tmp_path: Path) -> None:
    printed = run_script(
        f"""
        import os, signal, sys
        os.environ["TMPDIR"] = {str(tmp_path)!r}
        from sidestage import HTTPServer
        path = HTTPServer(tls=True).ca_file
        reader, writer = os.pipe()  # its end is that of the copy and of all its children
        if os.fork() == 0:
            os.close(reader)
            server = HTTPServer(tls=True).start()
            assert server.ca_file == path
            os.write(writer, b"%d" % server.pid)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(writer)
        pid = int(os.read(reader, 20))
        os.wait()
        while os.path.exists(f"/proc/{{pid}}"):
            os.sched_yield()
        print(os.path.exists(path))
        """
    )
    assert printed == "True\n"
    assert nothing_is_in(tmp_path)()


def test_the_end_of_servers_takes_nothing_from_a_process_that_lives(tmp_path: Path) -> None:
    script = SCRIPT.format(directory=str(tmp_path), life="", end="")
    printed = run_script(
        f"""{script}
        from sidestage.process.pool import pool
        for _ in range(2):  # the second has the fork server know, too
            with HTTPServer(tls=True) as server:
                path = server.ca_file
            pool.close()
        print(os.path.exists(path))
        """.replace("\n        ", "\n")
    )
    assert printed.endswith("True\n")
    assert nothing_is_in(tmp_path)()


def test_a_directory_belongs_to_the_process_in_its_name() -> None:
    name = Path(HTTPServer(tls=True).ca_file).parent.name
    assert name.startswith(f"sidestage-tls-{os.getpid()}-")


def test_a_start_without_a_place_for_files_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "_directory", None)
    monkeypatch.setattr(files.system, "mkdir", refuse)
    with HTTPServer(tls=True) as server:
        assert server.url.startswith("https:")


def make(directory: Path) -> Path:
    """A directory with a file."""
    directory.mkdir()
    (directory / "ca.pem").write_text("data")
    return directory


def test_a_directory_goes_with_its_files(tmp_path: Path) -> None:
    directory = make(tmp_path / "sidestage-tls-1-0")
    remove(str(directory))
    remove(str(directory))
    assert not directory.exists()


def test_a_directory_with_another_name_is_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path / "mine")
    remove(str(directory))
    remove("")
    assert (directory / "ca.pem").exists()


def test_a_link_to_a_directory_is_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path / "mine")
    link = tmp_path / "sidestage-tls-1-0"
    link.symlink_to(directory)
    remove(str(link))
    assert (link / "ca.pem").exists()


def test_a_directory_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make(tmp_path / "sidestage-tls-1-0")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    remove(str(directory))
    assert (directory / "ca.pem").exists()


def test_a_directory_with_something_else_in_it_is_left(tmp_path: Path) -> None:
    directory = make(tmp_path / "sidestage-tls-1-0")
    make(directory / "more")
    remove(str(directory))
    assert (directory / "more" / "ca.pem").exists()
