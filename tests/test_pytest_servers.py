"""More servers than the four fixtures, and other options for these, in a user's run of pytest."""

from __future__ import annotations

import pytest

from kit.pytest_runs import HEAD, Run, runner

MORE = """
import urllib.error
from sidestage import HTTPServer, SMTPServer, TCPServer, UDPServer
from sidestage.classic import TestHTTPServer

def fetch_quietly(url):
    try:
        fetch(url)
    except OSError:
        pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on one module, in a new process."""
    return runner(pytester, monkeypatch, HEAD + MORE)


class TestServe:
    def test_starts_as_many_servers_as_a_test_likes(self, run: Run) -> None:
        result = run("""
def test_many(serve):
    auth = serve(HTTPServer, handler=lambda request: "auth", name="auth", head_limit=1000)
    shops = [serve(HTTPServer, handler=lambda request: "shop") for _ in range(3)]
    mail = serve(SMTPServer, size_limit=10)
    assert (auth.name, auth.state.name, mail.state.name) == ("auth", "READY", "READY")
    assert [fetch(server.url) for server in (auth, *shops)] == ["auth", *3 * ["shop"]]
    stopped.append(auth)

def test_classic(serve):
    server = serve(TestHTTPServer, ("127.0.0.1", 0), lambda request: request.send_error(404))
    fetch_quietly(server.url)
    assert len(server.wait_for(1)) == 1

def test_stopped_with_the_test():
    assert stopped[0].state.name == "STOPPED"

stopped = []
""")
        result.assert_outcomes(passed=3)

    def test_module_and_session_last_as_long(self, run: Run) -> None:
        result = run("""
@pytest.fixture(scope="module")
def shop(serve_module):
    return serve_module(HTTPServer, handler=lambda request: "shop")

@pytest.fixture(scope="session")
def auth(serve_session):
    return serve_session(HTTPServer, handler=lambda request: "auth")

@pytest.mark.parametrize("number", range(3))
def test_shared(shop, auth, number):
    assert (fetch(shop.url), fetch(auth.url)) == ("shop", "auth")
    assert len(shop.received) == len(auth.received) == number + 1
""")
        result.assert_outcomes(passed=3)

    @pytest.mark.parametrize("name", ["serve", "serve_module", "serve_session"])
    def test_an_error_fails_the_test_itself(self, run: Run, name: str) -> None:
        scope = {"serve": "function"}.get(name, name.removeprefix("serve_"))
        result = run(f"""
@pytest.fixture(scope="{scope}")
def shop({name}):
    return {name}(HTTPServer, name="shop", handler=lambda request: {{}}[request.path])

def test_guilty(shop):
    fetch_quietly(shop.url + "/guilty")

def test_innocent(shop):
    assert True
""")
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(
            ["*test_guilty*", "*KeyError: '/guilty'*", "*sidestage: shop*", "received: 1"]
        )

    def test_a_server_without_a_name_is_reported_by_its_url(self, run: Run) -> None:
        result = run("""
def test_fails(serve):
    serve(HTTPServer)
    assert False
""")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*sidestage: HTTPServer at http://127.0.0.1:*"])

    def test_what_is_no_class_of_servers_says_what_to_write(self, run: Run) -> None:
        result = run("""
def test_wrong(serve):
    for wrong in (HTTPServer(), lambda: 3, "HTTPServer"):
        with pytest.raises(TypeError, match=r"serve\\(HTTPServer, handler=\\.\\.\\.\\)"):
            serve(wrong)
""")
        result.assert_outcomes(passed=1)

    def test_during_leaves_errors_to_the_plugin(self, run: Run) -> None:
        result = run("""
def test_inside(serve):
    server = serve(HTTPServer, handler=lambda request: {}[request.path])
    with server.during() as calls:
        fetch_quietly(server.url + "/inside")
    assert len(calls.errors) == 1
    assert False, "the body goes on"
""")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*the body goes on*", "*KeyError: '/inside'*"])

    def test_its_fixtures_are_listed_with_descriptions(self, run: Run) -> None:
        result = run("", "--fixtures")
        for name, until in (("serve", "test"), ("serve_session", "session")):
            text = f"    Starts servers: ``{name}(HTTPServer, handler=...)``; they stop with the "
            result.stdout.fnmatch_lines([f"{name}* -- *", f"{text}{until}."])


class TestMark:
    def test_sets_options_of_the_four(self, run: Run) -> None:
        result = run(
            """
pytestmark = pytest.mark.sidestage(http_server={"head_limit": 900, "name": "shop"})

def test_module(http_server):
    assert http_server.name == "shop"
    with pytest.raises(urllib.error.HTTPError, match="431"):
        fetch(http_server.url + "/" + 1000 * "x")

@pytest.mark.sidestage(http_server={"head_limit": 9999}, smtp_server={"size_limit": 10})
def test_closer(http_server, smtp_server):
    assert http_server.name == "shop"
    fetch(http_server.url + "/" + 1000 * "x")

@pytest.mark.sidestage(http_server={"handler": lambda request: "hello"})
def test_handler(http_server):
    assert fetch(http_server.url) == "hello"
""",
            "--strict-markers",
        )
        result.assert_outcomes(passed=3)

    def test_has_servers_speak_tls(self, run: Run) -> None:
        result = run(
            """
import socket, ssl
from sidestage import TLS, HTTPServer

def read(server):
    return urllib.request.urlopen(server.url, context=server.client_context()).status

@pytest.mark.sidestage(http_server={"tls": True}, tcp_server={"tls": TLS.expired()})
def test_marked(http_server, tcp_server, serve):
    assert read(http_server) == read(serve(HTTPServer, tls=True)) == 200
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        with socket.create_connection(tcp_server.server_address) as client:
            tcp_server.client_context().wrap_socket(client, server_hostname="localhost")
    assert not tcp_server.errors

@pytest.mark.sidestage(udp_server={"tls": True})
def test_wrong(udp_server):
    pass
"""
        )
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*TypeError: a UDPServer speaks no TLS*"])

    @pytest.mark.parametrize(
        "arguments, said",
        [
            (
                'http_sever={"keep": 1}',
                "'http_sever' is none of its fixtures: is it 'http_server'?",
            ),
            ('http_server={"head_limt": 1}', "no option 'head_limt': is it 'head_limit'?"),
            ('tcp_server={"size_limit": 1}', "tcp_server takes no option 'size_limit'*"),
            ("http_server=100", "http_server must be a dict of options, not 100"),
            ("{}", 'write http_server={"head_limit": 100}, say, in place of {}'),
        ],
    )
    def test_that_says_nothing_to_a_server_is_an_error(
        self, run: Run, arguments: str, said: str
    ) -> None:
        result = run(f"""
@pytest.mark.sidestage({arguments})
def test_one(http_server):
    pass
""")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"@pytest.mark.sidestage: *{said.replace('?', '[?]')}"])
        assert "pytest_plugin.py" not in result.stdout.str()

    def test_is_listed(self, run: Run) -> None:
        run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.sidestage(http_server=*"])
