"""Each message is an immutable value that survives encoding."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Union, get_type_hints

import msgspec
import pytest
from hypothesis import given

from kit.messages import CLASSES, COMMANDS, EVENTS, SETTINGS, VOCABULARIES, any_command, any_event
from sidestage.protocols.http.messages import Trailers
from sidestage.wire import messages
from sidestage.wire.messages import Message

encode = msgspec.msgpack.encode
to_command = msgspec.msgpack.Decoder(Union[COMMANDS]).decode  # noqa: UP007 - made at run time
to_event = msgspec.msgpack.Decoder(Union[EVENTS]).decode  # noqa: UP007 - made at run time


@given(any_command)
def test_commands_survive_the_wire(message: Message) -> None:
    decoded = to_command(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(any_event)
def test_events_survive_the_wire(message: Message) -> None:
    decoded = to_event(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(any_command | any_event)
def test_they_are_frozen(message: Message) -> None:
    for name in get_type_hints(type(message)):
        with pytest.raises(AttributeError):
            setattr(message, name, getattr(message, name))


@given(any_command | any_event)
def test_they_compare_by_value(message: Message) -> None:
    kind = type(message)
    same = kind(**{name: getattr(message, name) for name in get_type_hints(kind)})
    assert message == same
    assert message is not same
    assert message != object()


def test_their_tags_are_unique() -> None:
    tags = [kind.__struct_config__.tag for kind in CLASSES]
    assert len(set(tags)) == len(tags)


MODULES = [
    messages,
    *(importlib.import_module(f"sidestage.protocols.{name}.messages") for name in VOCABULARIES),
]


def test_every_message_class_can_be_decoded() -> None:
    """Each is a command, an event, or a protocol's settings."""
    defined = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    }
    assert defined == {*CLASSES, *SETTINGS}


def test_only_streams_go_in_both_directions() -> None:
    both = set(COMMANDS) & set(EVENTS)
    assert both == {messages.Data, messages.Ack, messages.AckSoon, messages.End, Trailers}


def test_nothing_on_the_wire_is_a_pickle() -> None:
    assert messages.__file__ is not None
    for module in Path(messages.__file__).parent.glob("*.py"):
        assert not re.search(r"import (pickle|marshal|dill)", module.read_text())
