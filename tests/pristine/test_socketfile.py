"""A socket's file is removed by its owner only."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sidestage.pristine.socketfile import SocketFile


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
