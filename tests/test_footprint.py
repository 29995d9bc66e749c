"""What is left of Sidestage in the test's process: nothing but what is listed here."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from kit.child_coverage import SETTINGS
from kit.scripts import run_script

FOOTPRINT = (Path(__file__).parent / "kit" / "footprint.py").read_text()

OURS = {"msgspec", "typing_extensions"}  # the second is imported by the first, if it is there

LIFE = """
import sidestage, sidestage.classic
from sidestage.backends.hosted import prepare
from sidestage.process.pool import pool

async def coroutine(request):
    "Answer nothing."

def get(server):
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        client.recv(100)

prepare()
for kind in sidestage.HTTPServer, sidestage.SMTPServer, sidestage.TCPServer, sidestage.UDPServer:
    for handler in None, lambda request: None, coroutine:
        with kind(handler=handler) as server, kind():
            server.stats()
            if kind is sidestage.HTTPServer:
                get(server)
refuse = lambda request: request.send_error(404)
with sidestage.classic.TestHTTPServer(("127.0.0.1", 0), refuse) as server:
    get(server)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    server = sidestage.TCPServer().start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(0.3)
pool.close()
"""


def changed_by(source: str) -> dict[str, list[str]]:
    """What is no longer as it was in a process after ``source``."""
    report = "\nimport json; print(json.dumps(changes(before)))\n"
    printed = run_script(FOOTPRINT + textwrap.dedent(source) + report)
    found: dict[str, list[str]] = json.loads(printed)
    return found


def test_an_import_changes_nothing() -> None:
    changed = changed_by("import sidestage; [getattr(sidestage, one) for one in sidestage.__all__]")
    modules = changed.pop("modules")
    assert changed == {}
    assert {name.partition(".")[0] for name in modules} <= {*OURS, *sys.stdlib_module_names}


def test_a_life_leaves_only_what_has_a_reason() -> None:
    changed = changed_by(LIFE)
    modules = {name.partition(".")[0] for name in changed.pop("modules")}
    assert modules <= {*OURS, "psutil", *sys.stdlib_module_names}  # not dill, not multiprocess
    assert changed == {
        "exit handlers": [
            "sidestage.process.pool.Pool.close",  # idle processes end with the test's
            "sidestage.process.fork_hooks.wait_for_threads",  # or older releases of 3.11 crash
            # The process object of multiprocess comes with it, and it has no process to end.
            "sidestage.process.process_object.util._exit_function",
            "sidestage.journal.unseen._tell",  # what handlers have raised and nobody has seen
            "sidestage.dispatch.coroutines._wait_for_loops",  # or a loop's thread runs too late
        ],
        "fork hooks": ["sidestage.process.fork_hooks"],  # a forked copy lets go of all servers
    }


SECURED = """
import sidestage
tls = sidestage.TLS(client_auth="optional")
with sidestage.HTTPServer(tls=tls) as server:
    server.client_context().load_cert_chain(*tls.client_certificate("alice"))
    server.client_env()
from sidestage.process.pool import pool
pool.close()
"""
MAKERS = {"trustme", "cryptography", "idna", "_cffi_backend", "_openssl"}  # of certificates


def test_tls_leaves_what_makes_certificates_and_one_exit_handler() -> None:
    changed = changed_by(SECURED)
    modules = {name.partition(".")[0] for name in changed.pop("modules")}
    assert modules <= {*OURS, *MAKERS, *sys.stdlib_module_names}
    assert "sidestage.layers.tls.files._remove" in changed.pop("exit handlers")
    assert changed == {"fork hooks": ["sidestage.process.fork_hooks"]}


# Says what the test's own pickle can do, and whether dill and multiprocess are whole.
PICKLES = """
import pickle, threading
import sidestage

def pickles(value):
    try:
        pickle._Pickler(__import__("io").BytesIO()).dump(value)
    except TypeError:
        return False
    return True

def extended():
    return pickles(threading.Lock()), pickles(open("/dev/null"))

def serve():
    with sidestage.HTTPServer(handler=print):
        pass

def whole():
    import dill, multiprocess
    made = dill.loads(dill.dumps(lambda: 7))()
    sent, received = multiprocess.Pipe()
    worker = multiprocess.get_context("fork").Process(target=lambda: sent.send(lambda: 8))
    worker.start()
    other = received.recv()()
    worker.join()
    return made, other, multiprocess.reduction.pickle is dill
"""


def test_pickle_goes_on_refusing_what_it_refuses() -> None:
    assert run_script(PICKLES + "serve()\nprint(extended())") == "(False, False)\n"


@pytest.mark.parametrize("first", ["serve(); import dill", "import dill; serve()"])
def test_dill_is_whole_for_a_test_that_uses_it(first: str) -> None:
    """Imported before the first start, and after it."""
    source = f"{PICKLES}\n{first}\nprint(extended(), *whole())\nserve()"
    assert run_script(source, "-W", "ignore") == "(True, True) 7 8 True\n"


def test_a_start_needs_no_directory_for_temporary_files() -> None:
    source = """
        import resource, tempfile
        from sidestage import TCPServer
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            with TCPServer(handler=print) as server:
                print(server.port > 0)
    """
    assert run_script(source) == "True\n"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can write nowhere cannot write what coverage counts."""
    monkeypatch.delenv(SETTINGS, raising=False)
