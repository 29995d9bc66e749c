"""Launch an interpreter for a server in all kinds of surroundings."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import sidestage
from kit.fake_children import StartFakeChild, fake_child, kill_and_reap, read_line
from kit.resources import own_descriptors
from kit.scripts import eventually, gone, run_script
from sidestage import StartError, TCPServer
from sidestage.pristine import system
from sidestage.pristine.waits import Deadline
from sidestage.process import launch
from sidestage.process.fork_client import ForkClient
from sidestage.process.handle import ServerProcess

__all__ = ["fake_child"]  # the fixture


def soon() -> Deadline:
    """A deadline that is never reached unless something hangs."""
    return Deadline(30)


@pytest.fixture
def no_new_descriptors() -> Iterator[None]:
    before = own_descriptors()
    yield
    assert own_descriptors() == before


class TestFailure:
    pytestmark = pytest.mark.usefixtures("no_new_descriptors")

    def test_an_interpreter_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launch, "_executable", "/no/such/python")
        with pytest.raises(StartError, match="no process could be started") as caught:
            launch.launch()
        assert caught.value.errno == errno.ENOENT

    def test_an_interpreter_that_must_not_run(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "python").touch(mode=0o600)
        monkeypatch.setattr(launch, "_executable", str(tmp_path / "python"))
        with pytest.raises(StartError) as caught:
            launch.launch()
        assert caught.value.errno == errno.EACCES

    @pytest.mark.parametrize("nothing", ["", None])
    def test_no_interpreter_at_all(
        self, monkeypatch: pytest.MonkeyPatch, nothing: str | None
    ) -> None:
        """An embedded Python has no useful sys.executable."""
        monkeypatch.setattr(launch, "_executable", nothing)
        with pytest.raises(StartError, match=r"sys\.executable is empty"):
            launch.launch()

    def test_a_platform_without_posix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "posix_spawn", None)
        with pytest.raises(StartError, match="POSIX"):
            launch.launch()

    @pytest.mark.parametrize("allowed", range(3))
    def test_no_more_descriptors(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        """Fail at each of the descriptors that a launch opens."""
        left = [allowed]

        def scarce(make: object) -> object:
            def wrapped(*arguments: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.EMFILE, "Too many open files")
                return make(*arguments)  # type: ignore[operator]

            return wrapped

        monkeypatch.setattr(system, "pipe", scarce(system.pipe))
        monkeypatch.setattr(system, "memfd_create", scarce(system.memfd_create))
        with pytest.raises(StartError, match="Too many open files") as caught:
            launch.launch()
        assert caught.value.errno == errno.EMFILE


def test_a_server_that_could_not_be_launched_can_be_later(monkeypatch: pytest.MonkeyPatch) -> None:
    server = TCPServer(fresh=True)
    with monkeypatch.context() as patch, pytest.raises(StartError):
        patch.setattr(ForkClient, "fork", lambda self, *_: None)
        patch.setattr(launch, "_executable", "/no/such/python")
        server.start()
    with server:
        pass


def test_what_is_abandoned_ends() -> None:
    launched = launch.launch()
    launched.abandon()
    assert gone(launched.pid)


def test_the_descriptors_are_not_inherited_by_others() -> None:
    process = ServerProcess(launch.launch())
    try:
        assert not any(os.get_inheritable(fd) for fd in process.descriptors())
    finally:
        kill_and_reap(process)


def test_the_child_has_its_three_streams_and_its_two_pipes(fake_child: StartFakeChild) -> None:
    process = fake_child(
        "for fd in (0, 1, 2, commands_fd, events_fd): os.fstat(fd)\n"
        "report(os.readlink('/proc/self/fd/0') + ' ' + os.readlink('/proc/self/fd/2'))"
    )
    words = read_line(process).split(maxsplit=1)
    assert words[0] == os.devnull
    assert words[1].endswith("(deleted)")  # a file without a name


def test_the_child_leads_a_group_of_its_own_in_our_session(fake_child: StartFakeChild) -> None:
    process = fake_child("wait_for_stop()")
    assert os.getpgid(process.launched.pid) == process.launched.pid
    assert os.getsid(process.launched.pid) == os.getsid(0)


def test_the_child_inherits_no_blocked_and_no_ignored_signal(fake_child: StartFakeChild) -> None:
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        process = fake_child("report('up'); wait_for_stop()")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, old)
    read_line(process)
    process.terminate()
    assert process.wait(soon())
    assert process.exit_code == -signal.SIGTERM


def test_the_child_outlives_the_thread_that_started_it(fake_child: StartFakeChild) -> None:
    started: list[ServerProcess] = []
    thread = threading.Thread(
        target=lambda: started.append(fake_child("report('up'); wait_for_stop()"))
    )
    thread.start()
    thread.join()
    assert read_line(started[0]) == "up"
    assert not started[0].wait(Deadline(0.05))


def test_the_command_line_names_no_code_of_the_test() -> None:
    process = ServerProcess(launch.launch())
    try:
        # The kernel lets a spawned program run just before it knows its arguments.
        assert eventually(lambda: bool(psutil.Process(process.launched.pid).cmdline()))
        words = psutil.Process(process.launched.pid).cmdline()
    finally:
        kill_and_reap(process)
    assert words[0] == sys.executable
    assert str(Path(__file__).parent) not in " ".join(words)


@pytest.mark.parametrize("closed", [[0], [1, 2], [0, 1, 2]])
def test_standard_streams_that_are_closed(closed: list[int], tmp_path: Path) -> None:
    result = tmp_path / "result"
    source = f"""
        import os
        for fd in {closed}:
            os.close(fd)
        from sidestage.process import launch
        launched = launch.launch()
        fds = launched.events_fd, launched.commands_fd, launched.stderr_fd
        up = len(os.read(launched.events_fd, 1))
        free = not any(os.path.exists(f"/proc/self/fd/{{fd}}") for fd in {closed})
        launched.abandon()
        with open({str(result)!r}, "w") as file:
            print(min(fds) > 2, up, free, file=file)
    """
    run_script(source)
    assert result.read_text() == "True 1 True\n"


def test_a_path_with_spaces(tmp_path: Path) -> None:
    """Both the package and the interpreter have one."""
    assert sidestage.__file__ is not None
    home = tmp_path / "with some spaces"
    home.mkdir()
    (home / "python 3").symlink_to(sys.executable)
    package = Path(sidestage.__file__).parent
    for file in package.rglob("*.py*"):
        copy = home / "site packages" / "sidestage" / file.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    source = f"""
        import sys
        sys.path.insert(0, {str(home / "site packages")!r})
        from sidestage import TCPServer
        from sidestage.process import launch
        launch._executable = {str(home / "python 3")!r}
        with TCPServer() as server:
            print(launch.__file__.startswith({str(home)!r}), server.port > 0)
    """
    assert run_script(source) == "True True\n"
