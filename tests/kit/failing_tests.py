"""Tests that fail, each for one reason; ``test_pytest_plugin_report.py`` reads what is printed.

The line of a handler that raises has the comment ``# here``, with a name if there are several.
"""

SOURCE = """
import asyncio, contextlib, os, signal, smtplib, socket, threading, unittest
import urllib.error, urllib.request
import aiohttp, httpx, pytest, requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry
from sidestage import HTTPServer, ServerDied, ServerManager, UDPServer

def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise

def fetch_quietly(url):
    try:
        fetch(url)
    except urllib.error.HTTPError:
        pass

def handler(request):
    assert request.query.get("format") == "csv", "want csv"  # here

async def coroutine(request):
    await asyncio.sleep(0)
    handler(request)

@pytest.fixture
def pdf(http_server):
    http_server.handler = handler
    return http_server.url + "/report?format=pdf"

def test_urllib(pdf):
    fetch(pdf)

def test_requests(pdf):
    requests.get(pdf).raise_for_status()

def test_httpx(pdf):
    httpx.get(pdf).raise_for_status()

def test_aiohttp(pdf):
    async def main():
        async with aiohttp.ClientSession() as session:
            async with session.get(pdf) as response:
                response.raise_for_status()
    asyncio.run(main())

def test_retry(pdf):
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(3, status_forcelist=[500])))
        session.get(pdf)

def test_nothing_else(pdf):
    fetch_quietly(pdf)

def test_asserts(pdf):
    assert requests.get(pdf).status_code == 200

def test_fails(pdf):
    fetch_quietly(pdf)
    pytest.fail("no report")

def test_elsewhere(pdf):
    fetch_quietly(pdf)
    {}["other"]

def test_coroutine():
    with HTTPServer(handler=coroutine, name="api") as server:
        fetch(server.url + "/report")

def test_equal(pdf):
    fetch_quietly(pdf)
    fetch_quietly(pdf)

def count(request):
    raise ValueError(request.path)  # here: count

def test_different(http_server):
    http_server.handler = count
    for path in ("/1", "/2", "/1"):
        fetch_quietly(http_server.url + path)

def test_many(http_server):
    http_server.handler = count
    for number in range(8):
        fetch_quietly(f"{http_server.url}/{number}")

def test_two_servers(pdf):
    with HTTPServer(handler=lambda request: {}["x"], name="other") as server:  # here: lambda
        fetch_quietly(server.url + "/a")
        fetch_quietly(pdf)

def test_manager():
    with ServerManager(one=HTTPServer(handler=handler), two=HTTPServer(handler=count)) as servers:
        fetch_quietly(servers["two"].url + "/2")
        fetch_quietly(servers["one"].url + "/1")

def refuse(mail):
    raise LookupError("nobody of that name")  # here: refuse

def test_smtp(smtp_server):
    smtp_server.handler = refuse
    with smtplib.SMTP(smtp_server.host, smtp_server.port) as client:
        client.sendmail("me@x", ["you@x"], "hello")

def hang_up(connection):
    assert connection.recv(10) == b"hello", "want hello"  # here: hang up

def test_tcp(tcp_server):
    tcp_server.handler = hang_up
    with socket.create_connection(tcp_server.server_address) as client:
        client.sendall(b"goodbye")
        assert client.recv(10) == b"hello"

def test_udp(udp_server):
    done = threading.Event()
    def answer(datagram):
        try:
            raise KeyError(datagram.packet)  # here: udp
        finally:
            done.set()
    udp_server.handler = answer
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", udp_server.server_address)
        assert done.wait(10)
        udp_server.wait_for(1)

async def gather(request):
    async def part(number):
        raise ValueError(f"part {number}")  # here: part
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(part(1))
        tasks.create_task(part(2))

def test_group(http_server):
    http_server.handler = gather
    fetch(http_server.url + "/parts")

def nonsense(request):
    return object()

def test_wrong_return(http_server):
    http_server.handler = nonsense
    fetch(http_server.url)

@pytest.fixture
def stuck(http_server):
    release = threading.Event()
    def wait(request):
        release.wait(60)  # here: wait
    http_server.handler = wait
    yield http_server
    release.set()

@pytest.mark.sidestage(http_server={"handler_timeout": 0.1})
def test_hung_handler(stuck):
    fetch(stuck.url + "/slow")

def test_hung_client(stuck):
    requests.get(stuck.url + "/slow", timeout=0.2)

def test_held(http_server):
    http_server.expect("GET", "/slow").hold()  # here: held
    urllib.request.urlopen(http_server.url + "/slow", timeout=0.2)

def test_refused(http_server):
    with socket.create_connection(http_server.server_address) as client:
        client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
        answer = client.recv(1000)
    if b"200" not in answer:
        raise LookupError(answer.decode())  # here: refused

def test_half(http_server):
    with socket.create_connection(http_server.server_address) as client:
        client.sendall(b"GET / HTTP/1")
        http_server.wait_for(1, timeout=0.1)  # here: half

def test_none_such(http_server):
    fetch(http_server.url + "/1")
    http_server.received.one("GET", "/2")  # here: none such

def test_taken(http_server):
    with HTTPServer(("127.0.0.1", http_server.port)):  # here: taken
        pass

def test_killed():
    server = HTTPServer(name="api").start()
    os.kill(server.pid, signal.SIGKILL)
    with contextlib.suppress(ServerDied):
        server.wait_for(1)
    try:
        socket.create_connection(server.server_address).recv(1)  # here: killed
    finally:
        with contextlib.suppress(ServerDied):
            server.stop()

def shout(request):
    raise RuntimeError("caf\\xe9\\x07 \\u2603\\n" + "x" * 10_000)  # here: shout

def test_odd_text(http_server):
    http_server.handler = shout
    fetch(http_server.url)

def test_body_alone(http_server):
    fetch(http_server.url)
    assert False, "the body's own"

def test_caught(http_server):
    http_server.handler = handler
    with pytest.raises(AssertionError, match="want csv"):
        with HTTPServer(handler=handler) as server:
            fetch_quietly(server.url)
    assert False, "the body's own"

def test_expected(http_server):
    http_server.handler = count
    with http_server.expected_errors(ValueError):
        fetch_quietly(http_server.url)
    assert False, "the body's own"

class TestCases(unittest.TestCase):
    def test_case(self):
        server = self.enterContext(HTTPServer(handler=handler))
        fetch(server.url + "/case")

    def test_case_alone(self):
        server = self.enterContext(HTTPServer(handler=handler))
        fetch_quietly(server.url + "/case")

@pytest.fixture
def requesting(http_server):
    http_server.handler = handler
    return fetch(http_server.url + "/setup")

def test_setup(requesting):
    pass

@pytest.fixture
def asking():
    with HTTPServer(handler=handler) as server:
        yield
        fetch_quietly(server.url + "/teardown")

def test_teardown(asking):
    pass

def test_skips(pdf):
    fetch_quietly(pdf)
    pytest.skip("not today")

@pytest.mark.xfail(raises=AssertionError, strict=True)
def test_xfails(pdf):
    fetch_quietly(pdf)

@pytest.mark.xfail(strict=True)
def test_xpasses(http_server):
    http_server.handler = handler
    with http_server.expected_errors(AssertionError):
        fetch_quietly(http_server.url)

def test_passes(http_server):
    assert fetch(http_server.url) == b""
"""
