"""What is printed of expectations under pytest: whose they are, when they fail, and how."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit.pytest_runs import PLUGIN, QUIET
from kit.scripts import environment

CONFTEST = """
import http.client
import pytest
from sidestage import HTTPServer

def get(server, path, method="GET", body=None, headers={}):
    client = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        client.request(method, path, body, headers)
        return client.getresponse().status
    finally:
        client.close()

@pytest.fixture(scope="module")
def shared():
    with HTTPServer(name="shared") as server:
        yield server

@pytest.fixture
def api(http_server):
    http_server.expect("GET", "/login").reply("ok")
    return http_server
"""

SOURCE = """
import os, signal
import pytest
from conftest import get

def test_met(http_server):
    http_server.expect("GET", "/a").reply("a")
    assert get(http_server, "/a") == 200

def test_unmet(http_server):
    http_server.expect("POST", "/orders", json={"sku": 7}).reply(201)  # here: unmet
    assert get(http_server, "/orders", "POST", '{"sku": "7"}') == 404

def test_never_called(http_server):
    http_server.expect("GET", "/a")  # here: never

def test_too_few(http_server):
    http_server.expect("GET", "/a", times=range(2, 4))  # here: few
    get(http_server, "/a")

def test_unexpected(http_server):
    http_server.allow("GET", "/orders")  # here: unexpected
    assert get(http_server, "/orders/") == 404

def test_too_often(http_server):
    http_server.expect("GET", "/a", times=1)  # here: often
    get(http_server, "/a")
    get(http_server, "/a")

def test_out_of_turn(http_server):
    with http_server.in_order():
        http_server.expect("GET", "/a", times=range(2))  # here: before
        http_server.expect("GET", "/b")  # here: first
        http_server.expect("GET", "/c", times=range(2))  # here: third
    get(http_server, "/c")
    get(http_server, "/b")

def test_several(http_server):
    http_server.allow("GET", "/a")  # here: several
    for path in ("/b", "/b", "/c"):
        get(http_server, path)

def test_own_error(http_server):
    http_server.expect("GET", "/a")  # here: own
    raise KeyError("mine")

def test_handler_and_unmet(http_server):
    def handler(request):
        raise LookupError("none")  # here: handler
    http_server.handler = handler
    http_server.expect("GET", "/a")  # here: beside
    get(http_server, "/b")

def test_fixture(api):
    pass

def test_skips(http_server):
    http_server.expect("GET", "/a")
    pytest.skip("not today")

@pytest.mark.xfail(raises=KeyError)
def test_xfails(http_server):
    http_server.expect("GET", "/a")
    raise KeyError("mine")

@pytest.mark.xfail(raises=KeyError)
def test_xfails_by_another(http_server):
    http_server.expect("GET", "/a")  # here: xfail

def test_shared_one(shared):
    shared.expect("GET", "/one").reply("one")
    assert get(shared, "/one") == 200

def test_shared_two(shared):
    assert get(shared, "/one") == 200  # it is not strict any more, and has no handler
    assert shared.received[-1].answer.size == 0
    shared.expect("GET", "/two")  # here: shared

def test_verified(http_server):
    http_server.expect("GET", "/a")
    with pytest.raises(AssertionError):
        http_server.verify()

def test_held(http_server):
    http_server.expect("GET", "/a").hold()  # here: held
    import threading
    thread = threading.Thread(target=lambda: pytest.raises(OSError, get, http_server, "/a"))
    thread.start()
    http_server.take("GET", "/a")
"""


def at(comment: str) -> str:
    """The line with that comment, as texts name it."""
    lines = SOURCE.splitlines()
    [number] = [n for n, text in enumerate(lines, 1) if text.endswith(f"# here: {comment}")]
    return f"test_it.py:{number}"


def run(directory: Path, *options: str, source: str = SOURCE) -> str:
    """What pytest prints of these tests."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text(source)
    unset = {"PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "CI"}
    given = {key: value for key, value in environment().items() if key not in unset}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *PLUGIN, *QUIET, *options, "test_it.py"],
        cwd=directory,
        env={**given, "COLUMNS": "300", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    return re.sub(r"(127\.0\.0\.1(?::|', ))\d+", r"\1PORT", done.stdout)


@pytest.fixture(scope="module", params=["one process", "workers"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    options = ("-n", "2", "--dist", "loadfile") if request.param == "workers" else ()
    return run(tmp_path_factory.mktemp("expectations"), *options)


def summary(output: str, name: str) -> str:
    """How a test has ended, and what the short summary says of it."""
    [told] = re.findall(rf"\n(\w+) test_it\.py::{name}(?: - (.*))?(?=\n)", output)
    return " ".join(told).strip()


SERVER = "HTTPServer 'http_server'"


# How each ends: the line of the summary.
ENDS = {
    "test_met": "PASSED",
    "test_unmet": f"FAILED UnexpectedRequest: POST /orders: json at .sku: 7 expected, "
    f'"7" came: a str, not an int ({at("unmet")}) at {SERVER}',
    "test_never_called": f"FAILED UnmetExpectation: expect GET /a ({at('never')}) "
    f"was met 0 of 1 times at {SERVER}",
    "test_too_few": f"FAILED UnmetExpectation: expect GET /a ({at('few')}) "
    f"was met 1 of 2 to 3 times at {SERVER}",
    "test_unexpected": f"FAILED UnexpectedRequest: GET /orders/: path: /orders expected "
    f"({at('unexpected')}) at {SERVER}",
    "test_too_often": f"FAILED UnexpectedRequest: GET /a: it was met 1 of 1 times "
    f"({at('often')}) at {SERVER}",
    "test_out_of_turn": "FAILED UnexpectedRequest: GET /c: out of turn: waits for expect GET /b "
    f"({at('first')}) ({at('third')}) at {SERVER}",
    "test_several": "FAILED UnexpectedRequest: GET /b: path: /a expected "
    f"({at('several')}) at {SERVER}, 2 times",
    "test_fixture": "FAILED UnmetExpectation: expect GET /login (conftest.py:21) "
    f"was met 0 of 1 times at {SERVER}",
    "test_xfails_by_another": f"FAILED UnmetExpectation: expect GET /a ({at('xfail')}) "
    f"was met 0 of 1 times at {SERVER}",
    "test_xfails": "XFAIL",
    "test_shared_one": "PASSED",
    "test_shared_two": f"FAILED UnmetExpectation: expect GET /two ({at('shared')}) "
    "was met 0 of 1 times at HTTPServer 'shared'",
    "test_verified": "PASSED",
    "test_own_error": "FAILED KeyError: 'mine'",
    "test_held": f"FAILED UnmetExpectation: expect GET /a ({at('held')}) "
    f"holds calls at {SERVER}, 1 taken and never answered: reply() to them, or reset() them",
}


def test_each_ends_as_it_should(output: str) -> None:
    ends = {name: summary(output, name) for name in ENDS}
    assert ends == ENDS
    assert re.search(r"\nSKIPPED \[1\] test_it\.py:\d+: not today\n(?!A server also)", output)


def test_a_handlers_error_and_what_is_unmet_are_told_together(output: str) -> None:
    told = summary(output, "test_handler_and_unmet")
    assert told == f"FAILED LookupError: none in handler, {at('handler')}"
    assert f"expect GET /a ({at('beside')}) was met 0 of 1 times" in output


def test_what_fails_already_gets_a_note(output: str) -> None:
    assert f"expect GET /a ({at('own')}) was met 0 of 1 times" in output


def test_the_report_opens_with_what_differs(output: str) -> None:
    report = output.split("_ test_unexpected _")[1].splitlines()[1:]
    opened = [line for line in report if not line.startswith("[gw")]  # xdist's
    assert opened[:4] == [
        ENDS["test_unexpected"].removeprefix("FAILED "),
        f"    what is expected: allow GET /orders ({at('unexpected')})",
        "      path: /orders expected, /orders/ came",
        "      hint: a slash at the end counts: with it and without it are two paths",
    ]


def test_no_report_says_that_frames_are_hidden(output: str) -> None:
    """Those are ours: what was expected, and where, is in the report."""
    assert "All traceback entries are hidden" not in output


def test_nothing_fails_twice(output: str) -> None:
    assert re.search(r"= 13 failed, 3 passed, 1 skipped, 1 xfailed in ", output), output[-3000:]


def test_an_unexpected_request_says_what_came_nearest(output: str) -> None:
    assert f"expect GET /a ({at('often')})" in output
    assert "it was met 1 of 1 times" in output
    assert f"out of turn: waits for expect GET /b ({at('first')})" in output
    assert f"allow GET /orders ({at('unexpected')})" in output


def test_an_unmet_one_of_a_fixture_says_so(output: str) -> None:
    assert "declared in fixture api: is it to be `allow`?" in output


def test_the_timeline_names_the_expectation(output: str) -> None:
    assert f"GET /a -> 200, 0 bytes by expect GET /a at {at('few')}" in output
    assert "GET /orders/ -> 404, " in output
    assert ", unexpected" in output


WIDE = """
import pytest
from conftest import get

@pytest.fixture(scope="module")
def login(shared):
    shared.expect("GET", "/login", times=2).reply("ok")

@pytest.fixture(scope="module")
def never(shared):
    shared.expect("GET", "/never").reply("ok")

def test_one(shared, login, never):
    shared.allow("GET", "/login").reply("not this")
    assert get(shared, "/login") == 200

def test_two(shared, login, never):
    assert get(shared, "/login") == 200
    assert get(shared, "/other") == 404

def test_three(shared, login, never):
    assert get(shared, "/login") == 404
"""


def test_a_wider_fixtures_are_verified_when_its_server_ends(tmp_path: Path) -> None:
    output = run(tmp_path, source=WIDE)
    assert summary(output, "test_one") == "PASSED"
    assert summary(output, "test_two").startswith("FAILED UnexpectedRequest: GET /other")
    assert "\nFAILED test_it.py::test_three - UnexpectedRequest: GET /login" in output
    [ended] = re.findall(r"\nERROR test_it\.py::test_three - (.*)", output)
    assert "expect GET /never (test_it.py:11) was met 0 of 1 times" in ended
    assert "declared in fixture never: is it to be `allow`?" in output


INTERRUPTED = """
import pytest
from conftest import get

@pytest.fixture(scope="module")
def login(shared):
    shared.expect("GET", "/login").reply("ok")

def test_one(shared, login, http_server):
    http_server.expect("GET", "/a")
    END
"""


@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_nothing_is_verified_after_an_interruption(tmp_path: Path, end: str) -> None:
    output = run(tmp_path, source=INTERRUPTED.replace("END", end))
    assert "was met 0 of" not in output
    assert "no tests ran" in output


FROZEN = """
import freezegun
from conftest import get

@freezegun.freeze_time("2001-01-01")
def test_one(http_server):
    http_server.expect("GET", "/a").reply("ok", delay=0.01)
    assert get(http_server, "/a") == 200
    http_server.expect("GET", "/b")
    assert http_server.received[0].answer.seconds < 10
"""


def test_a_frozen_clock_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("freezegun")
    output = run(tmp_path, source=FROZEN)
    assert "expect GET /b (test_it.py:9) was met 0 of 1 times" in summary(output, "test_one")


CASES = """
import unittest
from conftest import get
from sidestage import HTTPServer

class TestShop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(HTTPServer(name="class"))
        cls.server.expect("GET", "/login").reply("ok")

    def test_one(self):
        self.server.expect("GET", "/one")
        assert get(self.server, "/login") == 200

    def test_two(self):
        assert get(self.server, "/one") == 404
"""


def test_of_a_test_case(tmp_path: Path) -> None:
    output = run(tmp_path, source=CASES)
    one = summary(output, "TestShop::test_one")
    assert "expect GET /one (test_it.py:13) was met 0 of 1 times" in one
    assert summary(output, "TestShop::test_two").startswith("FAILED UnexpectedRequest: GET /one")
    assert "ERROR" not in output.replace("= ERRORS =", "")


STOPPED = """
import unittest
import pytest
from conftest import get
from sidestage import HTTPServer

class TestShop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = HTTPServer(name="class").start()
        cls.server.expect("GET", "/never")
        cls.server.expect("GET", "/login").reply("ok")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_first(self):
        assert get(self.server, "/login") == 200

    def test_last(self):
        pass

def test_local():
    server = HTTPServer(name="local").start()
    server.expect("GET", "/local")
    server.stop()
    del server

@pytest.fixture(scope="module")
def shop():
    server = HTTPServer(name="fixture").start()
    server.expect("GET", "/fixture")
    yield server
    server.stop()

def test_uses(shop):
    pass

def test_verified(shop):
    server = HTTPServer(name="verified").start()
    server.expect("GET", "/verified")
    server.stop()
    with pytest.raises(AssertionError):
        server.verify()

of_the_module = HTTPServer(name="module")
of_the_module.allow("GET", "/module")
of_the_module.expect("GET", "/module")
"""


def test_what_only_stops_is_verified_where_it_ends(tmp_path: Path) -> None:
    output = run(tmp_path, source=STOPPED)
    assert re.search(r"= 1 failed, 4 passed, 3 errors in ", output), output[-3000:]
    failed = re.findall(r"^(\w+ \S+) - UnmetExpectation: expect GET (/\w+)", output, re.M)
    assert sorted(failed) == [
        ("ERROR sidestage", "/module"),
        ("ERROR test_it.py::TestShop::test_last", "/never"),
        ("ERROR test_it.py::test_verified", "/fixture"),
        ("FAILED test_it.py::test_local", "/local"),
    ]
    assert "declared in setUpClass: is it to be `allow`?" in output
    assert "for a request during" not in output


PLAIN = """
import unittest
from sidestage import HTTPServer

class TestShop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = HTTPServer(name="class").start()
        cls.server.expect("GET", "/never")
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        server = HTTPServer(name="own").start()
        server.expect("GET", "/own")
        self.addCleanup(server.stop)

    def test_one(self):
        pass

MORE
"""


@pytest.mark.parametrize(
    "more, told", [("unittest.main()", 2), ("unittest.main(exit=False); 1 / 0", 0)]
)
def test_without_a_plugin_it_is_told_at_the_end_of_the_process(
    tmp_path: Path, more: str, told: int
) -> None:
    script = tmp_path / "test_shop.py"
    script.write_text(PLAIN.replace("MORE", more))
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Ran 1 test" in done.stderr
    assert done.stderr.count("UnmetExpectation: expect GET /") == told, done.stderr


RAISED = """
import unittest
import pytest
from sidestage import HTTPServer

class TestOwn(unittest.TestCase):
    def test_it(self):
        self.enterContext(HTTPServer(name="case")).expect("GET", "/case")

class TestLoop(unittest.IsolatedAsyncioTestCase):
    async def test_it(self):
        (await self.enterAsyncContext(HTTPServer(name="loop"))).expect("GET", "/loop")

def test_with():
    with HTTPServer(name="with") as server:
        server.expect("GET", "/with")
        server.expect("GET", "/twice")
"""


def test_what_a_with_has_raised_opens_the_report_as_well(tmp_path: Path) -> None:
    output = run(tmp_path, source=RAISED)
    for name in ("TestOwn::test_it", "TestLoop::test_it", "test_with"):
        assert summary(output, name).startswith("FAILED UnmetExpectation: expect GET /"), output
    report = report_of(output, "test_with")
    assert re.findall(r"^UnmetExpectation: expect GET /(\w+)", report, re.M) == ["with", "twice"]


STOPS_EARLY = """
import pytest
from sidestage import HTTPServer

@pytest.fixture(scope="session")
def shop(serve_session):
    server = serve_session(HTTPServer, name="shop")
    server.expect("GET", "/session")
    return server

def test_fails(shop):
    shop.expect("GET", "/mine")

def test_is_not_reached(shop):
    pass
"""


def test_a_run_that_stops_early_says_so_of_what_lasts_longer(tmp_path: Path) -> None:
    output = run(tmp_path, "-x", source=STOPS_EARLY)
    assert re.search(r"= 1 failed, 1 error in ", output), output[-3000:]
    _, teardown, failure = re.split(
        r"^_+ (?:ERROR at teardown of )?test_fails _+$", output, flags=re.M
    )
    assert "GET /session" in teardown
    assert "the run stops here: what lasts longer than a test may have been met later" in teardown
    assert "serve.stop()" not in output
    assert "the run stops here" not in failure


BROKEN_SETUP = """
import pytest
from conftest import get

@pytest.fixture
def broken(api):
    raise KeyError("mine")

def test_one(broken):
    "It has no call."
"""


def test_a_setup_that_fails_is_all_that_is_told(tmp_path: Path) -> None:
    output = run(tmp_path, source=BROKEN_SETUP)
    assert re.search(r"= 1 error in ", output), output
    assert "was met 0 of" not in output


def test_a_servers_mark_may_have_it_only_reply(tmp_path: Path) -> None:
    source = """
import pytest
from conftest import get

@pytest.mark.sidestage(http_server={"unexpected": "reply"})
def test_one(http_server):
    http_server.allow("GET", "/a")
    assert get(http_server, "/b") == 404
"""
    assert summary(run(tmp_path, source=source), "test_one") == "PASSED"


CLEAN_UP = """
import pytest
from conftest import get

@pytest.fixture
def cleaning(shared):
    yield
    get(shared, "/clean")

def test_one(shared, cleaning):
    shared.expect("GET", "/a")
    assert get(shared, "/a") == 200

def test_two(shared):
    assert get(shared, "/b") == 200
"""


def test_an_unexpected_request_of_a_clean_up_is_its_own_tests(tmp_path: Path) -> None:
    output = run(tmp_path, source=CLEAN_UP)
    assert "\nERROR test_it.py::test_one - UnexpectedRequest: GET /clean" in output
    assert summary(output, "test_two") == "PASSED"


TOLD = """
import pytest
from conftest import get

def test_two_unmet(http_server):
    http_server.expect("GET", "/a")
    http_server.expect("GET", "/b")

def test_waits(http_server):
    expectation = http_server.expect("GET", "/a")
    expectation.wait(timeout=0)

def test_waits_in_vain(http_server):
    expectation = http_server.expect("GET", "/orders").hold()
    get(http_server, "/order")
    expectation.take(timeout=0)

def test_wrong_path(http_server):
    http_server.expect("GET", "/orders")
    get(http_server, "/order")

def test_met_another(http_server):
    http_server.expect("GET", "/orders/7")  # another
    http_server.expect("GET", "/orders/8")
    get(http_server, "/orders/7")

def test_takes_what_is_not_held(http_server):
    http_server.allow("GET", "/a").take()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("told"), source=TOLD)


def report_of(output: str, name: str) -> str:
    """What the report of a failed test has."""
    return output.split(f"_ {name} _")[1].split("\n____")[0].split("\n====")[0]


def test_several_name_their_server_in_the_order_of_declaration(told: str) -> None:
    report = report_of(told, "test_two_unmet")
    assert f"ExceptionGroup: 2 errors at {SERVER} (2 sub-exceptions)" in report
    first, second = re.findall(r"^UnmetExpectation: expect GET (/.)", report, re.M)
    assert (first, second) == ("/a", "/b")


def test_a_wait_in_vain_is_the_tests_own(told: str) -> None:
    assert " → test: WaitTimeout: " in summary(told, "test_waits_in_vain")
    for name in ("test_waits", "test_waits_in_vain", "test_takes_what_is_not_held"):
        assert "def run(" not in report_of(told, name)
        assert "def _taking(" not in report_of(told, name)


def test_how_a_request_differs_is_told_once(told: str) -> None:
    report = report_of(told, "test_wrong_path").partition("ExceptionGroup: ")[2]
    assert report.count("path: /orders expected, /order came") == 1
    assert report.count("hint: ") == 1
    assert "what came:\n    |   GET /order: as told above\n" in report


def test_a_request_that_has_met_another_is_no_slip(told: str) -> None:
    report = report_of(told, "test_met_another")
    number = TOLD.splitlines().index('    http_server.expect("GET", "/orders/7")  # another') + 1
    assert f"GET /orders/7, which has met expect GET /orders/7 at test_it.py:{number}\n" in report
    assert "path: /orders/8 expected, /orders/7 came" in report
    assert "hint: " not in report


ALL_CASES = """
import unittest
from conftest import get
from sidestage import HTTPServer

def fetch(server):
    assert get(server, "/b") == 200, "mine"

class TestOwn(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(HTTPServer())
    def test_it(self):
        self.server.expect("GET", "/a")
        fetch(self.server)

class TestShared(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(HTTPServer())
    def setUp(self):
        self.enterContext(self.server.during())
    def test_it(self):
        self.server.expect("GET", "/a")
        fetch(self.server)

class TestLoop(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = await self.enterAsyncContext(HTTPServer())
    async def test_it(self):
        import asyncio
        self.server.expect("GET", "/a")
        await asyncio.to_thread(fetch, self.server)
"""


def test_a_test_case_fails_once_with_what_a_server_has(tmp_path: Path) -> None:
    output = run(tmp_path, source=ALL_CASES)
    assert re.search(r"= 3 failed in ", output), output[-3000:]
    for name in ("TestOwn", "TestShared", "TestLoop"):
        report = report_of(output, f"{name}.test_it")
        assert len(re.findall(r"^E +AssertionError: mine$", report, re.M)) == 1
        assert report.count("A server also reported:") == 1
        assert "path: /a expected, /b came" in report.partition("A server also")[2]
        assert (
            "UnmetExpectation: expect GET /a (test_it.py:" in report.partition("A server also")[2]
        )


SECTIONS = """
import pytest
from conftest import get
from sidestage import HTTPServer

@pytest.fixture(scope="module")
def wide(serve_module):
    return serve_module(HTTPServer, name="wide")

def test_uses(wide, http_server):
    assert get(wide, "/a") == 0

def test_uses_not(http_server):
    assert get(http_server, "/a") == 0

def test_declares(wide, http_server):
    wide.expect("GET", "/a")

def test_has_no_own(wide):
    raise KeyError("mine")
"""


def test_only_servers_that_a_test_has_used_are_shown(tmp_path: Path) -> None:
    output = run(tmp_path, source=SECTIONS)
    shown = {
        name: re.findall(r"^-+ sidestage: (\w+) -+$", report_of(output, name), re.M)
        for name in ("test_uses", "test_uses_not", "test_declares", "test_has_no_own")
    }
    assert shown == {
        "test_uses": ["http_server", "wide"],
        "test_uses_not": ["http_server"],
        "test_declares": ["http_server", "wide"],
        "test_has_no_own": ["wide"],
    }
