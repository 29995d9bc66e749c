"""What is printed of a failure: the cause first, in our words, then what pytest shows."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit.failing_tests import SOURCE
from kit.pytest_runs import PLUGIN, QUIET
from kit.scripts import environment


def line(name: str = "") -> str:
    """Where the handler of that name raises."""
    comment = f"# here: {name}" if name else "# here"
    [number] = [n for n, text in enumerate(SOURCE.splitlines(), 1) if text.endswith(comment)]
    return f"test_it.py:{number}"


def of(definition: str) -> str:
    """Where a function is defined."""
    return f"test_it.py:{SOURCE.splitlines().index(definition) + 1}"


def request_of(server: str, request: str) -> str:
    return f"    raised by the handler of {server} for {request} from ('127.0.0.1', PORT)"


def source_of(name: str) -> str:
    """The line on which the handler of that name raises, as a report has it."""
    number = int(line(name).partition(":")[2])
    return f"    > {SOURCE.splitlines()[number - 1].strip()}"


NOBODY = "LookupError: nobody of that name"
WANT = f"AssertionError: want csv in handler, {line()}"
SOURCE_LINE = '    > assert request.query.get("format") == "csv", "want csv"  # here'
BY_FIXTURE = request_of("HTTPServer 'http_server'", "GET /report?format=pdf")
COUNT = line("count")
COUNT_LINE = "    > raise ValueError(request.path)  # here: count"


def count(path: str, times: str = "") -> str:
    return f"ValueError: {path} in handler, {COUNT}{times}"


# What each failure begins with, whole; the first line is that of the summary, too.
OPENINGS: dict[str, list[str]] = {
    "test_urllib": [f"{WANT} → client: HTTPError 500", SOURCE_LINE, BY_FIXTURE],
    "test_requests": [f"{WANT} → client: HTTPError 500", SOURCE_LINE, BY_FIXTURE],
    "test_httpx": [f"{WANT} → client: HTTPStatusError 500", SOURCE_LINE, BY_FIXTURE],
    "test_aiohttp": [f"{WANT} → client: ClientResponseError 500", SOURCE_LINE, BY_FIXTURE],
    "test_retry": [f"{WANT}, 4 times → client: RetryError", SOURCE_LINE, BY_FIXTURE],
    "test_nothing_else": [WANT, SOURCE_LINE, BY_FIXTURE],
    "test_asserts": [
        f"{WANT} → test: AssertionError: assert 500 == 200",
        SOURCE_LINE,
        BY_FIXTURE,
    ],
    "test_fails": [f"{WANT} → test: Failed: no report", SOURCE_LINE, BY_FIXTURE],
    "test_elsewhere": [f"{WANT} → test: KeyError: 'other'", SOURCE_LINE, BY_FIXTURE],
    "test_coroutine": [
        f"{WANT} → client: HTTPError 500",
        SOURCE_LINE,
        request_of("HTTPServer 'api'", "GET /report"),
    ],
    "test_equal": [f"{WANT}, 2 times", SOURCE_LINE, BY_FIXTURE],
    "test_different": [
        count("/1", ", 2 times"),
        COUNT_LINE,
        request_of("HTTPServer 'http_server'", "GET /1"),
        count("/2"),
        COUNT_LINE,
        request_of("HTTPServer 'http_server'", "GET /2"),
    ],
    "test_many": [*(count(f"/{n}") for n in range(5)), "and 3 more errors"],
    "test_two_servers": [
        f"KeyError: 'x' in handler, {line('lambda')}",
        source_of("lambda"),
        request_of("HTTPServer 'other'", "GET /a"),
        WANT,
        SOURCE_LINE,
        BY_FIXTURE,
    ],
    "test_manager": [
        count("/2"),
        COUNT_LINE,
        request_of("HTTPServer 'two'", "GET /2"),
        WANT,
        SOURCE_LINE,
        request_of("HTTPServer 'one'", "GET /1"),
    ],
    "test_smtp": [
        f"{NOBODY} in handler, {line('refuse')} → client: SMTPDataError 451",
        '    > raise LookupError("nobody of that name")  # here: refuse',
        request_of("SMTPServer 'smtp_server'", "the mail from 'me@x'"),
    ],
    "test_tcp": [
        f"AssertionError: want hello in handler, {line('hang up')} → client: ConnectionResetError",
        '    > assert connection.recv(10) == b"hello", "want hello"  # here: hang up',
        request_of("TCPServer 'tcp_server'", "a connection"),
    ],
    "test_udp": [
        f"KeyError: b'?' in handler, {line('udp')}",
        "    > raise KeyError(datagram.packet)  # here: udp",
        request_of("UDPServer 'udp_server'", "a datagram of 1 bytes"),
    ],
    "test_group": [
        (
            f"ValueError: part 1 (one of 2 in ExceptionGroup) in handler, {line('part')} "
            "→ client: HTTPError 500"
        ),
        '    > raise ValueError(f"part {number}")  # here: part',
        request_of("HTTPServer 'http_server'", "GET /parts"),
    ],
    "test_hung_handler": [
        (
            f"the handler gave no answer to GET /slow within 0.1 s: sent 504, {line('wait')} "
            "→ client: HTTPError 504"
        ),
        (
            f"    GET /slow: handler running for TIME s at {line('wait')}, and its client has gone "
            "on without it"
        ),
    ],
    "test_hung_client": [
        (
            f"not answered: GET /slow: handler running for TIME s at {line('wait')} "
            "→ client: ReadTimeout"
        ),
    ],
    "test_held": [
        (
            f"not answered: GET /slow: held for TIME s by expect GET /slow at {line('held')}, "
            "until the test answers it; its client has closed its side → client: TimeoutError"
        ),
    ],
    "test_refused": [
        (
            "sent 400 Bad Request: 0 Host fields, there must be one (RFC 9112 3.2), "
            f"{line('refused')} → test: LookupError: HTTP/1.1 400 Bad Request"
        ),
    ],
    "test_half": [
        (
            "WaitTimeout: HTTPServer 'http_server' received 0 of 1 within 0.1 s: nothing complete, "
            f"{line('half')}"
        ),
        "    open now:",
        "      #1   connected, has sent 12 bytes of a request, waiting for the rest",
    ],
    "test_none_such": [
        f"NotOneRecord: no record is of('GET', '/2'), among 1, {line('none such')}",
        "      <HTTPRequest GET /1 from ('127.0.0.1', PORT)>",
    ],
    "test_taken": [
        (
            "StartError: HTTPServer cannot listen on ('127.0.0.1', PORT): Address already in use; "
            f"that port is taken, port 0 never clashes, {line('taken')}"
        ),
    ],
    "test_killed": [
        (
            "ServerDied: the process of HTTPServer 'api' (pid PID) was killed by SIGKILL; its "
            f"stderr is empty, {line('killed')} → client: ConnectionRefusedError"
        ),
    ],
    "test_odd_text": [
        f"RuntimeError: café? ☃ in handler, {line('shout')} → client: HTTPError 500",
        '    > raise RuntimeError("caf\\xe9\\x07 \\u2603\\n" + "x" * 10_000)  # here: shout',
        request_of("HTTPServer 'http_server'", "GET /"),
    ],
    "TestCases.test_case": [
        f"{WANT} → client: HTTPError 500",
        SOURCE_LINE,
        request_of("HTTPServer at http://127.0.0.1:PORT", "GET /case"),
    ],
    "TestCases.test_case_alone": [
        WANT,
        SOURCE_LINE,
        request_of("HTTPServer at http://127.0.0.1:PORT", "GET /case"),
    ],
    "test_setup": [
        f"{WANT} → client: HTTPError 500",
        SOURCE_LINE,
        request_of("HTTPServer 'http_server'", "GET /setup"),
    ],
    "test_teardown": [
        WANT,
        SOURCE_LINE,
        request_of("HTTPServer at http://127.0.0.1:PORT", "GET /teardown"),
    ],
}
# Of a full trace, which takes long, and prints megabytes of all.
FEW = (
    "test_urllib",
    "test_asserts",
    "test_coroutine",
    "test_smtp",
    "test_nothing_else",
    "test_wrong_return",
    "test_half",
    "test_killed",
    "test_body_alone",
    "test_caught",
    "test_expected",
)
RUNS = {
    "auto": (),
    "short": ("--tb=short",),
    "native": ("--tb=native",),
    "line": ("--tb=line",),
    "workers": ("-n", "2"),
    "full": ("--full-trace", "-k", " or ".join(FEW)),
}


@pytest.fixture(scope="module", params=RUNS)
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints, for each kind of traceback."""
    directory = tmp_path_factory.mktemp("failing")
    (directory / "test_it.py").write_text(SOURCE)
    return printed_by(directory, *RUNS[request.param], "test_it.py")


PORTS = r"(127\.0\.0\.1(?::|', ))\d+"


def printed_by(directory: Path, *options: str, columns: int = 300) -> str:
    unset = {"PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "CI"}
    given = {key: value for key, value in environment().items() if key not in unset}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, *QUIET, *options],
        cwd=directory,
        env={**given, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    text = re.sub(PORTS, r"\1PORT", done.stdout)
    text = re.sub(r"\(pid \d+\)", "(pid PID)", text)
    return re.sub(r"for \d+\.\d s\b", "for TIME s", text)


@functools.lru_cache(maxsize=1)  # what --full-trace prints is long
def failures(output: str) -> list[tuple[str, str]]:
    """The failures that are shown: their names, and what is below their headings."""
    heading = re.compile(r"^_+ (?:ERROR at \w+ of )?(\S+) _+$", re.MULTILINE)
    found = [*heading.finditer(output)]
    ends = [*(match.start() for match in found[1:]), len(output)]
    return [
        (match[1], output[match.end() + 1 : end]) for match, end in zip(found, ends, strict=True)
    ]


def failure(output: str, name: str) -> list[str]:
    """The lines below the heading of a failure."""
    shown = [text for each, text in failures(output) if each == name]
    assert len(shown) == 1, f"{len(shown)} failures of {name} are shown:\n{output}"
    return shown[0].splitlines()


@functools.lru_cache(maxsize=1)
def summaries(output: str) -> list[tuple[str, str]]:
    """The tests in the short summary, and what it says of each."""
    short = output.rpartition(" short test summary info ")[2]
    found = re.findall(r"\n(?:FAILED|ERROR) test_it\.py::(\S+)(?: - (.*))?(?=\n)", short)
    return [(name, told) for name, told in found]


def summary(output: str, name: str) -> str:
    """What the short summary says of a test."""
    node = name.replace(".", "::")
    [told] = [told for each, told in summaries(output) if each == node]
    return told


def test_each_begins_with_its_cause(output: str, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["output"]
    for name, opening in OPENINGS.items():
        if kind == "full" and name not in FEW:
            continue
        assert summary(output, name) == opening[0]
        if kind != "line":
            lines = failure(output, name)
            while kind == "workers" and lines[0].startswith("[gw"):
                del lines[0]
            assert lines[: len(opening)] == opening
        else:
            assert re.search(rf"\n\S+:\d+: {re.escape(opening[0])}\n", output)


def test_what_is_not_a_handlers_is_as_pytest_has_it(output: str) -> None:
    for name in ("test_body_alone", "test_caught", "test_expected"):
        assert summary(output, name) == "AssertionError: the body's own"


def test_a_wrong_return_names_the_handler(output: str) -> None:
    told = summary(output, "test_wrong_return")
    file, number = of("def nonsense(request):").split(":")
    back = int(number) + 1
    where = f"({file}:{number}), return in line {back}"
    assert told.startswith(f"TypeError: nonsense {where}: no response can be made of object ")
    assert told.endswith(f"… in handler, {file}:{back} → client: HTTPError 500")
    assert len(told) < 200


def test_each_fails_once(output: str, request: pytest.FixtureRequest) -> None:
    told = "35 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors in "
    if request.node.callspec.params["output"] == "full":
        told = f"{len(FEW)} failed, "
    assert f"= {told}" in output, output[-3000:]


def test_only_a_full_trace_has_frames_of_ours(output: str, request: pytest.FixtureRequest) -> None:
    full = request.node.callspec.params["output"] == "full"
    assert ("def run_handler" in output) is full
    assert ("sidestage/dispatch/" in output) is full


def test_the_page_about_it_shows_what_is_printed(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "failing.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    (_, source), (_, shown) = blocks[:2]
    (tmp_path / "test_shop.py").write_text(source)
    output = printed_by(tmp_path, "test_shop.py", columns=120)
    for text in re.sub(PORTS, r"\1PORT", shown).splitlines():
        assert text == "..." or text.strip("_= ") in output
