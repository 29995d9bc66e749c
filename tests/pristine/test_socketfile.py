"""A socket's file is removed by its owner only."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sidestage import StartError, TCPServer
from sidestage.pristine import socketfile, system
from sidestage.pristine.socketfile import SocketFile, take_over

LONG = 30.0  # seconds; a bound for what ends at once unless it is broken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "socket"
    bind(path)
    return path


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def test_removes_what_was_bound(path: Path) -> None:
    SocketFile(str(path)).remove()
    assert not path.exists()


def test_twice(path: Path) -> None:
    file = SocketFile(str(path))
    file.remove()
    path.write_text("another's")
    file.remove()
    assert path.exists()


def test_one_that_is_gone_already(path: Path) -> None:
    file = SocketFile(str(path))
    path.unlink()
    file.remove()


def test_leaves_the_file_of_another_that_took_the_path(path: Path) -> None:
    file = SocketFile(str(path))
    other = path.with_name("other")
    bind(other)
    other.replace(path)
    file.remove()
    assert path.exists()


def test_one_that_never_was(tmp_path: Path) -> None:
    file = SocketFile(str(tmp_path / "never"))
    bind(tmp_path / "never")
    file.remove()
    assert (tmp_path / "never").exists()


def test_an_abstract_name_is_no_file() -> None:
    SocketFile("\0name").remove()


def test_a_link_to_what_was_bound_is_another_file(path: Path) -> None:
    file = SocketFile(str(path))
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))
    file.remove()
    assert path.is_symlink()


def test_after_its_socket_was_closed_only_an_abandoned_file_is_removed(tmp_path: Path) -> None:
    """A new file may have got the inode of the old one: here it is the same file."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        SocketFile(str(path)).remove(closed=True)
        assert path.exists()
        file = SocketFile(str(path))
    file.remove(closed=True)
    assert not path.exists()


def test_a_file_that_may_not_be_removed_is_no_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = SocketFile(str(path))
    monkeypatch.setattr(system, "unlink", refuse)
    file.remove()


# Several that want one path ----------------------------------------------------------------------


class Claim:
    """A socket that is to be bound at a path, in a thread of its own."""

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        bind = functools.partial(self.sock.bind, str(path))
        self.outcome: Future[None] = threads.submit(take_over, str(path), bind)

    def has_the_path(self) -> bool:
        """Whether it got the path; another has it if not."""
        error = self.outcome.exception(LONG)
        assert error is None or (isinstance(error, OSError) and error.errno == errno.EADDRINUSE)
        return error is None


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_of_two_that_take_over_an_abandoned_path_one_gets_it(
    path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has seen that it is abandoned, and the second comes before it acts on that."""
    seen, second_came = threading.Event(), threading.Event()
    look, lock = socketfile.is_abandoned, socketfile._flock

    def is_abandoned(path: str) -> bool:
        found = look(path)
        if not seen.is_set():
            seen.set()
            assert second_came.wait(LONG)
        return found

    def flock(fd: int, operation: int) -> None:
        try:
            lock(fd, operation)
        except BlockingIOError:
            second_came.set()
            raise

    monkeypatch.setattr(socketfile, "is_abandoned", is_abandoned)
    monkeypatch.setattr(socketfile, "_flock", flock)
    monkeypatch.setattr(socketfile, "_TRIES", 3000)
    first = Claim(path, threads)
    assert seen.wait(LONG)
    second = Claim(path, threads)
    second.outcome.add_done_callback(lambda _: second_came.set())  # where there is no lock
    with first.sock, second.sock:
        assert [first.has_the_path(), second.has_the_path()] == [True, False]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_path_that_another_has_bound_meanwhile_is_not_taken_over(
    path: Path, threads: ThreadPoolExecutor
) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))
        claim = Claim(path, threads)
        with claim.sock:
            assert not claim.has_the_path()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_no_socket_is_not_taken_over(
    make: Any, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    path = tmp_path / "precious"
    make(path)
    claim = Claim(path, threads)
    with claim.sock:
        assert not claim.has_the_path()
    assert path.exists()


HOLDER = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("locked", flush=True)
signal.pause()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock on the directory."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_lock_ends_with_its_process(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with TCPServer(path):
        assert path.is_socket()
    assert not path.exists()


def test_a_lock_that_is_held_is_a_start_error(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StartError, match="lock") as caught:
        TCPServer(path).start()
    assert caught.value.errno == errno.EADDRINUSE
    assert path.is_socket()


def test_a_path_that_is_free_needs_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with TCPServer(tmp_path / "free"):
        pass


@pytest.mark.parametrize("where", ["open", "flock"])
def test_a_directory_that_cannot_be_locked_is_no_obstacle(
    where: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    if where == "open":
        monkeypatch.setattr(system, "open_fd", refuse)
    else:
        monkeypatch.setattr(socketfile, "_flock", refuse)
    with socket.socket(socket.AF_UNIX) as sock:
        take_over(str(path), functools.partial(sock.bind, str(path)))


def test_the_lock_is_free_again_whatever_was_raised(path: Path) -> None:
    def fail() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        take_over(str(path), fail)
    fd = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
