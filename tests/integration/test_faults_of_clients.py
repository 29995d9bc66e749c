"""What popular HTTP clients make of each fault, as docs/faults.md says."""

from __future__ import annotations

import pytest

from kit.faulty_clients import FAULTS, HARMLESS, TABLE, clients, outcome

CLIENTS = clients()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_says(name: str, fault: str) -> None:
    """An error of its own kind; for the version on the page, the very one that is there."""
    client = CLIENTS[name]
    said, error = outcome(client, fault)
    if fault in HARMLESS:
        assert said == "`'hello'`"
    else:
        assert isinstance(error, client.errors)
    versions, cells = TABLE.told()
    if versions.get(name, "") == client.version():
        assert said == cells[fault, name]


def test_the_page_has_every_fault_and_every_client() -> None:
    _, cells = TABLE.told()
    assert {fault for fault, _ in cells} == {*FAULTS}
    assert {*CLIENTS} <= {name for _, name in cells}
