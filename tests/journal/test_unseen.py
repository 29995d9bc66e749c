"""What handlers have raised and nobody has seen is told when the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest

from kit.scripts import environment
from sidestage.journal import unseen
from sidestage.journal.failures import MOST, Failures

HEAD = """
import atexit, gc, os, sys, unittest, urllib.error, urllib.request
from sidestage import HTTPServer, ServerManager, UDPServer

def handler(request):
    return {"/tea": "3.20"}[request.path]  # here

def ask(server, path="/coffee"):
    try:
        urllib.request.urlopen(server.url + path).close()
    except urllib.error.HTTPError as error:
        error.close()

"""
PLACE = HEAD.splitlines().index('    return {"/tea": "3.20"}[request.path]  # here') + 1
TOLD = "sidestage: nobody has seen these errors:"
FIRST = "KeyError: '/coffee' in handler, script.py:{}{} → client told: 500"


def ended(tmp_path: Path, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A process that has run ``source`` as a script, after ``HEAD``."""
    (tmp_path / "script.py").write_text(HEAD + textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, *flags, "script.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    done.stderr = done.stderr.replace(f"{tmp_path}{os.sep}", "")
    return done


def told(stderr: str) -> list[str]:
    """What is told at the end of the process, without what names a port."""
    if TOLD not in stderr:
        return []
    _, _, text = stderr.partition(TOLD)
    assert TOLD not in text, "told twice"
    return [line for line in text.splitlines()[1:] if not line.startswith("    raised by")]


def one(count: str = "") -> list[str]:
    return [FIRST.format(PLACE, count), '    > return {"/tea": "3.20"}[request.path]  # here']


UNSEEN = {
    "a running server": "server = HTTPServer(handler=handler).start(); ask(server)",
    "a forgotten one": "ask(HTTPServer(handler=handler).start()); gc.collect()",
    "sys.exit": "server = HTTPServer(handler=handler).start(); ask(server); sys.exit(0)",
    "two halves of a stop": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        server.begin_stop(5) and server.finish_stop()
    """,
    "a forgotten server that has stopped": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        server.begin_stop(5) and server.finish_stop()
        del server
        gc.collect()
    """,
    "explained": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        print(server.explain())
    """,
    "one that came after those that were read": """
        server = HTTPServer(handler=handler).start()
        ask(server, "/juice")
        assert server.errors
        ask(server)
    """,
    "no stderr any more": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        sys.stderr = None
    """,
}
SEEN = {
    "no error": "server = HTTPServer(handler=handler).start(); ask(server, '/tea')",
    "a with": """
        try:
            with HTTPServer(handler=handler) as server:
                ask(server)
        except KeyError:
            pass
    """,
    "a stop": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        try:
            server.stop()
        except KeyError:
            pass
    """,
    "raise_errors": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        try:
            server.raise_errors()
        except KeyError:
            pass
    """,
    "errors": "server = HTTPServer(handler=handler).start(); ask(server); assert server.errors",
    "errors, and forgotten": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        assert server.errors
        del server
        gc.collect()
    """,
    "errors of a while": """
        server = HTTPServer(handler=handler).start()
        calls = server.during().__enter__()
        ask(server)
        assert calls.errors
    """,
    "expected": """
        server = HTTPServer(handler=handler).start()
        with server.expected_errors(KeyError):
            ask(server)
    """,
    "cleared": "server = HTTPServer(handler=handler).start(); ask(server); server.clear()",
    "a manager": """
        manager = ServerManager().start()
        manager.add("shop", HTTPServer(handler=handler))
        ask(manager["shop"])
        try:
            manager.stop()
        except KeyError:
            pass
    """,
    "the end of the process at once": """
        server = HTTPServer(handler=handler).start()
        ask(server)
        os._exit(0)
    """,
}


class TestAtTheEndOfTheProcess:
    @pytest.mark.parametrize("source", UNSEEN.values(), ids=UNSEEN.keys())
    def test_what_nobody_has_seen_is_told(self, source: str, tmp_path: Path) -> None:
        done = ended(tmp_path, source)
        assert done.returncode == 0
        assert told(done.stderr) == one()

    @pytest.mark.parametrize("source", SEEN.values(), ids=SEEN.keys())
    def test_what_somebody_has_seen_is_not(self, source: str, tmp_path: Path) -> None:
        done = ended(tmp_path, source)
        assert (done.returncode, done.stderr) == (0, "")

    def test_an_uncaught_exception_has_it_as_a_note(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            with HTTPServer(handler=handler) as server:
                ask(server)
                raise ValueError("mine")
            """,
        )
        assert done.returncode == 1
        assert "A server also reported:\nKeyError: '/coffee'" in done.stderr
        assert TOLD not in done.stderr

    def test_an_uncaught_exception_past_a_server_leaves_it_unseen(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            server = HTTPServer(handler=handler).start()
            ask(server)
            raise ValueError("mine")
            """,
        )
        assert done.returncode == 1
        assert "ValueError: mine" in done.stderr
        assert told(done.stderr) == one()

    def test_equal_ones_are_told_once_with_their_count(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            for _ in range(2):
                server = HTTPServer(name="shop", handler=handler).start()
                ask(server), ask(server)
            ask(server, "/juice")
            """,
        )
        other = [line.replace("coffee", "juice") for line in one()]
        assert told(done.stderr) == [*one(", 4 times"), *other]
        assert "    raised by the handler of HTTPServer 'shop' for GET /coffee from " in done.stderr
        assert " for GET /juice from " in done.stderr

    def test_a_stop_at_the_exit_comes_before(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            server = HTTPServer(handler=handler).start()
            atexit.register(server.stop)
            ask(server)
            """,
        )
        assert "KeyError: '/coffee'" in done.stderr
        assert TOLD not in done.stderr

    def test_a_warning_of_a_server_never_stopped_does_not_tell_it_twice(
        self, tmp_path: Path
    ) -> None:
        done = ended(tmp_path, UNSEEN["a forgotten one"], "-W", "always")
        assert "was never stopped\n" in done.stderr
        assert done.stderr.count("KeyError") == 1
        assert told(done.stderr) == one()

    def test_a_copy_tells_only_what_is_its_own(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            server = HTTPServer(handler=handler).start()
            ask(server)
            ask(HTTPServer(handler=handler).start())
            gc.collect()
            if os.fork():
                assert os.wait()[1] == 0
            else:
                server = HTTPServer(handler=handler).start()
                ask(server, "/juice")
                del server
                gc.collect()
            """,
        )
        assert done.returncode == 0
        of_copy, of_original = [text.splitlines()[1] for text in done.stderr.split(TOLD)[1:]]
        assert of_copy == FIRST.format(PLACE, "").replace("coffee", "juice")
        assert of_original == FIRST.format(PLACE, ", 2 times")

    @pytest.mark.parametrize("close", ["sys.stderr.close()", "sys.stderr = sys.__stderr__ = None"])
    def test_without_stderr_nothing_is_told(self, close: str, tmp_path: Path) -> None:
        done = ended(tmp_path, f"{UNSEEN['a running server']}; {close}")
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_run_of_unittest_tells_it(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            class Tests(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    cls.server = HTTPServer(handler=handler).start()

                def test_coffee(self):
                    ask(self.server)

            unittest.main()
            """,
        )
        assert done.returncode == 0
        assert told(done.stderr) == one()

    def test_the_client_of_a_datagram_is_told_nothing(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            import socket, threading
            came = threading.Event()

            def handler(datagram):
                came.set()
                raise ValueError(f"no {datagram.packet}")

            server = UDPServer(handler=handler).start()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"tea", server.server_address)
            assert came.wait(10)
            server.wait_idle()
            """,
        )
        assert told(done.stderr)[0].startswith("ValueError: no b'tea' in handler, script.py:")
        assert "client told" not in done.stderr

    def test_of_many_the_first_are_shown(self, tmp_path: Path) -> None:
        done = ended(
            tmp_path,
            """
            server = HTTPServer(handler=handler).start()
            for number in range(25):
                ask(server, f"/{number:02}")
            """,
        )
        lines = told(done.stderr)
        shown = [line for line in lines if line.startswith("KeyError")]
        assert [line[10:14] for line in shown] == [f"'/{number:02}"[:4] for number in range(20)]
        assert lines[-1] == "and 5 more errors"


@pytest.fixture
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests, which is told at the end of the run."""
    monkeypatch.setattr(unseen, "_left", unseen._Left())
    monkeypatch.setattr(unseen, "_holding", unseen._holding.__class__())


@pytest.mark.usefixtures("nothing_yet")
class TestWhatIsKept:
    def test_of_a_server_that_is_gone_is_bounded(self) -> None:
        for _ in range(3):
            failures = Failures()
            for number in range(MOST + 10):
                failures.add(ValueError(number), "")
            del failures
        causes, more = unseen.take()
        assert (len(causes), more) == (MOST, 2 * MOST + 30)
        assert unseen.take() == ([], 0)

    def test_is_text_alone(self) -> None:
        class Held:
            pass

        gone: list[str] = []
        held = Held()
        failures = Failures()
        failures.add(ValueError(held), "")
        weakref.finalize(held, gone.append, "held")
        del failures, held
        assert gone == ["held"]
        assert len(unseen.take()[0]) == 1
