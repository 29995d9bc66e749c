"""What a test is charged with at the end of a phase: raised, or a note on what it raises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import UnmetExpectation
from ..journal import causes
from ..journal.failures import attach, combined
from . import items

if TYPE_CHECKING:
    from .. import Server
    from ..journal.failures import Failure

    Unmet = dict[str, list[Failure]]  # by the server as messages name it
    Verify = Callable[[], Unmet]


def raising(
    item: pytest.Item,
    wanted: Callable[[Failure], bool] | None = None,
    *,
    catch_up: bool = False,
    verify: Verify | None = None,
) -> Generator[None, object, object]:
    """At the end of a phase, raise what handlers have raised; a note, if it fails already."""
    __tracebackhide__ = True
    try:
        result = yield
    except BaseException as error:
        # Of a skip, a note would be a part of the reason.
        if isinstance(error, (KeyboardInterrupt, pytest.exit.Exception, pytest.skip.Exception)):
            verify = None
        if (raised := new_error(item, catch_up=catch_up, verify=verify, fails=True)) is not None:
            attach(error, raised)
        raise
    if (failed := _of_test_case(item)) is not None:
        if (raised := new_error(item, catch_up=catch_up, verify=verify, fails=True)) is not None:
            attach(failed, raised)
        return result
    if (raised := new_error(item, wanted, catch_up=catch_up, verify=verify)) is not None:
        raise raised
    return result


def _of_test_case(item: pytest.Item) -> BaseException | None:
    """What fails a TestCase, which pytest keeps until the report; notes on it tell the rest."""
    kept: list[Any] = getattr(item, "_excinfo", None) or []
    if not kept or isinstance(kept[0].value, (pytest.skip.Exception, pytest.xfail.Exception)):
        return None
    first: BaseException = kept[0].value
    for other in kept[1:]:  # of its clean-up; pytest would call them errors of the teardown
        if _is_of_servers(other.value):
            attach(first, other.value)
            kept.remove(other)
    return first


def _is_of_servers(error: BaseException) -> bool:
    """Whether it is what a server had to report, or several of these."""
    own = {each for cause in causes.causes_of(error) for each in cause.own}
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    return all(isinstance(each, UnmetExpectation) or id(each) in own for each in errors)


def new_error(
    item: pytest.Item,
    wanted: Callable[[Failure], bool] | None = None,
    *,
    catch_up: bool,
    verify: Verify | None = None,
    fails: bool = False,
) -> BaseException | None:
    """What handlers have raised and nobody has seen, if it is charged to this test.

    That is what its own servers have, and of others, what came while no other test ran. The rest
    is told at the end of the run. ``verify`` says what is unmet: that is no cause of a test that
    ``fails`` anyway.
    """
    if "sidestage.server.server" not in sys.modules:
        return None
    from ..server import registry

    if catch_up:
        registry.catch_up()

    def is_charged(server: Server[Any], failure: Failure) -> bool:
        if wanted is not None and not wanted(failure):
            return False
        if any(server is own for own in item.stash.get(items.SERVERS, [])):
            return True
        return failure.cause.charged_to(item.stash.get(items.TEST, None))

    taken = registry.take_errors(is_charged)
    unmet = verify() if verify is not None else None
    if not (taken.failures or taken.more or unmet):  # as after nearly every phase
        return None
    item.stash[items.TOLD] += [failure.cause for failure in taken.failures]
    if unmet:
        taken.servers.extend(unmet)
        for failure in (each for of_server in unmet.values() for each in of_server):
            taken.failures.append(failure)
            item.stash[items.TOLD] += [] if fails else [failure.cause]
    servers = " and ".join(dict.fromkeys(taken.servers))
    return combined(taken.failures, servers, more=taken.more)
