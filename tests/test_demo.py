"""The demonstration shows what it promises."""

from __future__ import annotations

import re

from kit.scripts import run_python


def test_it_shows_every_kind_of_server_at_work() -> None:
    printed = run_python("-W", "error", "-m", "sidestage.demo")
    (own,) = re.findall(r"the test process is pid (\d+)", printed)
    served = re.findall(r"^  (\w+): (\w+)://\S+ served by pid (\d+)$", printed, re.MULTILINE)
    assert [name for name, _, _ in served] == ["http", "smtp", "tcp", "udp"]
    assert [scheme for _, scheme, _ in served] == ["http", "smtp", "tcp", "udp"]
    assert len({own, *(pid for _, _, pid in served)}) == 5
    assert re.findall(r"handled in pid (\d+)", printed) == [own] * 5
    assert "the client got 200" in printed
    assert '"/greet"' in printed
    assert "the mail's subject is 'hello'" in printed
    assert "the client got b'SHOUT'" in printed
    assert "they agreed on TLSv1." in printed
    assert "certificate has expired" in printed
    assert len(re.findall(r"stopped by 'ask'", printed)) == 4
    assert "disk full" in printed
    assert "the client got 500 AssertionError: want csv" in printed
    assert re.search(r"GET /report\?fmt=csv .*500", printed)
    assert 'the client got 201 {"id": 1}' in printed
    assert "the client got ConnectionResetError(" in printed
    assert 'the client got 200 {"state": "paid"}' in printed
    assert re.search(r"the client got 404 .*/order/1", printed)
    told = printed.partition("the test fails with UnexpectedRequest:")[2]
    assert "GET /order/1" in told
    assert "GET /orders/{id:int}" in told
