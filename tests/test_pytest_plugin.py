"""Fixtures, failures and reports, in a user's run of pytest."""

from __future__ import annotations

import re

import pytest

from kit.pytest_runs import Run, runner


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on one module, in a new process."""
    return runner(pytester, monkeypatch)


def test_each_fixture_is_a_started_server_whose_handler_the_test_sets(run: Run) -> None:
    result = run("""
def test_http(http_server):
    assert fetch(http_server.url) == ""
    http_server.handler = lambda request: request.path
    assert fetch(http_server.url + "/path") == "/path"
    assert [request.path for request in http_server.received] == ["/", "/path"]

def test_smtp(smtp_server):
    smtp_server.handler = lambda mail: "250 filed"
    with smtplib.SMTP(smtp_server.host, smtp_server.port) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: hello\\r\\n\\r\\nhi")
    assert smtp_server.wait_for(1)[0].message["Subject"] == "hello"

def test_tcp(tcp_server):
    tcp_server.handler = lambda connection: connection.recv(10).upper()
    with socket.create_connection(tcp_server.server_address) as client:
        client.sendall(b"shout")
        assert client.recv(10) == b"SHOUT"

def test_udp(udp_server):
    udp_server.handler = lambda datagram: datagram.packet * 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(b"ab", udp_server.server_address)
        assert client.recv(10) == b"abab"

def test_together(http_server, tcp_server):
    assert {http_server.name, tcp_server.name} == {"http_server", "tcp_server"}

@pytest.mark.parametrize("number", range(3))
def test_each_test_has_its_own(http_server, number):
    assert http_server.received == []
    fetch(http_server.url)
""")
    result.assert_outcomes(passed=8)


FAILING = """
def test_handler(http_server):
    def handler(request):
        assert request.path == "/expected"
    http_server.handler = handler
    with pytest.raises(urllib.error.HTTPError):
        fetch(http_server.url + "/surprise")
"""


def test_a_failing_assert_in_a_handler_fails_the_test_itself(run: Run) -> None:
    result = run(FAILING, "-rA")
    result.assert_outcomes(failed=1)  # and no error
    result.stdout.fnmatch_lines(
        [
            '*assert request.path == "/expected"*',
            "*AssertionError: assert '/surprise' == '/expected'*",
            "*raised by the handler of HTTPServer 'http_server' for GET /surprise*",
        ]
    )


def test_a_failure_report_shows_the_servers(run: Run) -> None:
    result = run(
        FAILING
        + """
def test_body(http_server, tcp_server):
    fetch(http_server.url + "/seen")
    assert False, "the body's own"

def test_passes(http_server):
    fetch(http_server.url + "/unseen")
"""
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- sidestage: http_server -*",
            "<HTTPServer 'http_server' READY http://127.0.0.1:* pid=*>",
            "received: 1",
            "  *GET /surprise -> 500, *",
            "  *handler raised AssertionError: assert '/surprise' == '/expected'*, at *.py:*",
            "*the body's own*",
            "*- sidestage: http_server -*",
            "received: 1",
            "  *GET /seen*",
            "*- sidestage: tcp_server -*",
            "received: 0",
        ]
    )
    result.stdout.no_fnmatch_line("*unseen*")


OWN = """
from sidestage import HTTPServer, ServerManager

@pytest.fixture(scope="module")
def shop():
    with HTTPServer(name="shop") as server:
        yield server

def test_before(shop):
    fetch(shop.url)

def test_with(shop):
    with HTTPServer(name="own") as server, HTTPServer(name="idle") as idle:
        fetch(server.url + "/seen")
        assert False, "with"

def test_fixture(shop):
    fetch(shop.url + "/shop")
    assert False, "fixture"

def test_manager(server_manager):
    server = server_manager.add("api", HTTPServer())
    fetch(server.url + "/api")
    assert False, "manager"

def test_none():
    assert False, "none"
"""


def test_a_failure_report_shows_servers_that_the_test_has_started_itself(run: Run) -> None:
    result = run(OWN)
    result.assert_outcomes(failed=4, passed=1)
    sections = [line.strip("- ") for line in result.outlines if "- sidestage: " in line]
    api = sections.pop()
    assert sections == ["sidestage: own", "sidestage: shop"]
    assert re.fullmatch(r"sidestage: (api|HTTPServer.*)", api)
    result.stdout.fnmatch_lines(
        [
            "*- sidestage: own -*",
            "<HTTPServer 'own' STOPPED*>",
            "  *GET /seen -> 200, *",
            "*- sidestage: shop -*",
            "  *GET /shop -> 200, *",
            "*- sidestage: *",
            "  *GET /api -> 200, *",
        ]
    )


MANY = """
def test_many(http_server):
    for number in range(40):
        fetch(http_server.url + f"/{number}")
    assert False
"""


def test_a_failure_report_has_thirty_lines_by_default(run: Run) -> None:
    result = run(MANY)
    result.stdout.fnmatch_lines(["received: 40", "  13 earlier", "  *GET /13 -> 200, 0 bytes*"])
    result.stdout.no_fnmatch_line("*GET /12 *")


def test_a_failure_report_may_have_everything_or_nothing(run: Run) -> None:
    run(MANY, "--sidestage-report=full").stdout.fnmatch_lines(
        ["received: 40", "  *GET /0 -> 200, 0 bytes*", "  *GET /39 -> 200, 0 bytes*"]
    )
    run(MANY, "--sidestage-report=none").stdout.no_fnmatch_line("*sidestage: http_server*")


def test_what_a_test_received_is_not_kept_for_the_rest_of_the_run(run: Run) -> None:
    result = run("""
import gc, weakref
servers = []

@pytest.mark.parametrize("number", range(3))
def test_each(http_server, number):
    gc.collect()
    assert [server() for server in servers] == [None] * number
    fetch(http_server.url)
    servers.append(weakref.ref(http_server))
""")
    result.assert_outcomes(passed=3)


def test_what_a_handler_raises_neither_hides_a_failing_body_nor_changes_its_own_kind(
    run: Run,
) -> None:
    result = run("""
def test_both(tcp_server):
    tcp_server.handler = lambda connection: 1 / 0
    with socket.create_connection(tcp_server.server_address) as client:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert False, "the body's own"

def test_skips(http_server):
    http_server.handler = lambda request: pytest.skip("not today")
    with pytest.raises(urllib.error.HTTPError):
        fetch(http_server.url)
""")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*the body's own*", "*ZeroDivisionError*"])


def test_a_forgotten_server_is_reported(run: Run) -> None:
    result = run(
        """
from sidestage import HTTPServer

def url():
    return HTTPServer().start().url

def test_forgets():
    with pytest.raises(OSError, match="refused"):
        fetch(url())
""",
        warnings=(),
    )
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*ResourceWarning: <HTTPServer READY http://* was never stopped*"])


def test_what_a_handler_raises_is_shown_without_internal_frames(run: Run) -> None:
    result = run("""
from sidestage import HTTPServer

def handler(request):
    assert request.path == "/other"

def test_fixture(http_server):
    http_server.handler = handler
    with pytest.raises(OSError):
        fetch(http_server.url)

def test_with():
    with HTTPServer(handler=handler) as server, pytest.raises(OSError):
        fetch(server.url)
""")
    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    assert shown.count('assert request.path == "/other"') >= 2
    assert "src/sidestage/" not in shown.replace("\\", "/")


def test_a_manager_for_the_whole_run(run: Run) -> None:
    result = run("""
def test_first(server_manager):
    server = server_manager.add("api", __import__("sidestage").HTTPServer())
    assert fetch(server.url + "/first") == ""

def test_second(server_manager):
    server = server_manager["api"]
    assert server.state.name == "READY"
    fetch(server.url + "/second")
    assert [request.path for request in server.received] == ["/first", "/second"]
""")
    result.assert_outcomes(passed=2)


def test_a_test_case_of_unittest(run: Run) -> None:
    result = run("""
from sidestage import HTTPServer

class Test(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(HTTPServer(handler=self.handle))

    def handle(self, request):
        self.assertEqual(request.path, "/expected")
        return self.id().rpartition(".")[2]

    def test_passes(self):
        self.assertEqual(fetch(self.server.url + "/expected"), "test_passes")

    def test_fails(self):
        with self.assertRaises(urllib.error.HTTPError):
            fetch(self.server.url + "/surprise")
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: '/surprise' != '/expected'*"])


def test_several_workers(run: Run) -> None:
    result = run(
        """
@pytest.mark.parametrize("number", range(6))
def test_one(http_server, server_manager, number):
    http_server.handler = lambda request: str(os.getpid())
    assert fetch(http_server.url) == str(os.getpid())
""",
        "-n",
        "2",
    )
    result.assert_outcomes(passed=6)


COUNT = """
import psutil

def test_counts():
    print("children:", len(psutil.Process().children()))
"""


def test_a_suite_that_does_not_use_it_has_no_process_of_it(run: Run) -> None:
    result = run(COUNT, "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*children: 0*"])


def test_a_suite_that_does_has_one_warm(run: Run) -> None:
    result = run(COUNT + "\nfrom sidestage import HTTPServer\nHTTPServer\n", "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*children: 1*"])


def test_to_collect_only_starts_nothing(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import os

def pytest_unconfigure():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        print("children:", file.read().split())
""")
    result = run("def test_one(http_server): pass", "--collect-only")
    result.stdout.fnmatch_lines(["*test_one*", "*children: []*"])


def test_its_fixtures_are_listed_with_descriptions(run: Run) -> None:
    result = run("", "--fixtures")
    for name in ("http", "smtp", "tcp", "udp"):
        kind = name.upper()
        result.stdout.fnmatch_lines(
            [
                f"{name}_server -- *",
                f"    *started {kind} server of this test; set ``{name}_server.handler``.",
            ]
        )
    result.stdout.fnmatch_lines(
        ["server_manager* -- *", "    A started manager for the whole session*"]
    )


def test_a_wrong_result_is_shown_at_the_handler_without_code_of_ours(run: Run) -> None:
    result = run("""
def test_mail(smtp_server):
    def handler(mail):
        return 250

    smtp_server.handler = handler
    with smtplib.SMTP(*smtp_server.server_address) as client:
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("me@example.org", "you@example.org", "Subject: hello")
""")
    result.assert_outcomes(failed=1)
    shown = result.stdout.str().partition("= FAILURES =")[2].partition("- sidestage:")[0]
    assert "    def handler(mail):\n>       return 250\n" in shown
    assert "test_mail.<locals>.handler (" in shown
    assert "may return None (250) or a reply" in shown
    assert len(shown.splitlines()) < 16
    assert "src/sidestage" not in shown


GIVES_UP = """
import http.client, time

def give_up(server):
    client = http.client.HTTPConnection(server.host, server.port, timeout=0.1)
    client.request("GET", "/slow")
    with pytest.raises(TimeoutError):
        client.getresponse()
    client.close()
"""


def test_a_test_of_a_time_out_costs_a_tenth_of_a_second(run: Run) -> None:
    """Five of them together take less than one of the sleeps."""
    result = run(
        GIVES_UP
        + """
@pytest.mark.parametrize("number", range(5))
def test_time_out(http_server, number):
    http_server.handler = lambda request: time.sleep(8)
    give_up(http_server)
""",
        warnings=(),
    )
    result.assert_outcomes(passed=5, warnings=5)
    assert result.duration < 8
    result.stdout.re_match_lines(
        [r".*LeftRunningWarning: .*GET /slow at .*\.py:\d+, in <lambda>.*"]
    )


def test_the_warning_of_a_handler_that_runs_on_can_be_filtered(run: Run) -> None:
    result = run(
        GIVES_UP
        + """
@pytest.mark.filterwarnings("ignore::sidestage.LeftRunningWarning")
def test_time_out(http_server):
    http_server.handler = lambda request: time.sleep(8)
    give_up(http_server)

def test_waits_for_it(http_server):
    http_server.handler = lambda request: request.client_gone.wait(8) and "late"
    give_up(http_server)

def test_coroutine(http_server):
    async def handler(request):
        await asyncio.sleep(8)

    import asyncio
    http_server.handler = handler
    give_up(http_server)
"""
    )
    result.assert_outcomes(passed=3)


def test_a_report_that_cannot_be_made_leaves_the_failure_as_it_is(run: Run) -> None:
    result = run("""
def test_breaks(http_server):
    def explain(lines):
        raise OSError("patched")

    vars(http_server)["explain"] = explain
    assert 1 == 2
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "no report can be made: OSError('patched')"])
