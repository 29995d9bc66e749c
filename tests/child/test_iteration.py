"""One iteration: commands are read before anything is acted on, messages go before answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.connections import Connection
from sidestage.child.iteration import LARGE, Iteration
from sidestage.wire.messages import Message, Synced


class Loop:
    """Notes what is scheduled and what is reported."""

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.failures: list[Exception] = []
        self.readers: set[int] = set()
        self.now = 0.0

    def add_reader(self, fd: int, read: Callable[[], object]) -> None:
        self.readers.add(fd)

    def remove_reader(self, fd: int) -> None:
        self.readers.discard(fd)

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context["exception"])


class Stage:
    """An iteration, and the steps it has taken, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.loop = Loop()
        loop: Any = self.loop
        outbox: Any = self
        self.iteration = Iteration(loop, outbox)
        self.iteration.read_commands = lambda: self.steps.append("commands")

    def flush(self) -> None:
        self.steps.append("messages")

    def send(self, message: Message) -> None:
        assert isinstance(message, Synced)
        self.steps.append("synced")

    def reads(self, fd: int, act: Callable[[], object] = lambda: None) -> None:
        """Have ``fd`` read by a step, and ``act`` after it."""

        def read() -> None:
            self.steps.append(f"read {fd}")
            act()

        self.iteration.add_reader(fd, read)

    def receive(self, name: str) -> None:
        self.iteration.received.append((self.steps.append, name))


class Sender:
    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name = stage, name
        stage.iteration.senders.append(self)

    def send(self) -> None:
        self._stage.steps.append(self._name)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def other(connection: Connection) -> Iterator[Connection]:
    """Another connection in the same iteration."""
    other = Connection(connection.iteration)
    yield other
    other.close()


class TestReceiving:
    """What the selector has found is received from in the iteration, before the commands."""

    def test_all_is_received_before_the_commands_are_read(self, stage: Stage) -> None:
        for fd in (3, 4):
            stage.reads(fd)
        stage.iteration.readable += [4, 3]
        stage.iteration.act()
        assert stage.steps[:3] == ["read 4", "read 3", "commands"]
        assert not stage.iteration.readable

    def test_what_was_removed_meanwhile_is_not_read(self, stage: Stage) -> None:
        stage.reads(3, lambda: stage.iteration.remove_reader(4))
        stage.reads(4)
        stage.iteration.readable += [3, 4]
        stage.iteration.act()
        assert "read 4" not in stage.steps
        assert stage.loop.readers == {3}

    def test_one_that_fails_keeps_no_other_from_its_turn(self, stage: Stage) -> None:
        error = RuntimeError("no")

        def fail() -> None:
            raise error

        stage.reads(3, fail)
        stage.reads(4)
        stage.iteration.readable += [3, 4]
        stage.iteration.act()
        assert stage.steps[1] == "read 4"
        assert stage.loop.failures == [error]


class TestActing:
    def test_commands_are_read_before_anything_is_acted_on(self, stage: Stage) -> None:
        stage.receive("one")
        stage.receive("two")
        assert stage.steps == []
        stage.iteration.act()
        assert stage.steps[:3] == ["commands", "one", "two"]

    def test_commands_are_read_where_nothing_was_received(self, stage: Stage) -> None:
        stage.iteration.act()
        assert stage.steps[0] == "commands"

    def test_nothing_is_acted_on_twice(self, stage: Stage) -> None:
        stage.receive("one")
        stage.iteration.act()
        stage.iteration.act()
        assert stage.steps.count("one") == 1

    def test_an_error_does_not_keep_the_others_from_theirs(self, stage: Stage) -> None:
        error = ValueError("expected")

        def fail(argument: object) -> None:
            raise error

        stage.receive("one")
        stage.iteration.received.append((fail, None))
        stage.receive("two")
        stage.iteration.act()
        assert stage.steps[:3] == ["commands", "one", "two"]
        assert stage.loop.failures == [error]

    def test_what_was_asked_is_answered_after_everything_was_acted_on(self, stage: Stage) -> None:
        """That is, after an iteration in which nothing has come."""
        stage.iteration.asked.append(1)
        stage.iteration.taken += 1
        stage.receive("one")
        stage.iteration.act()
        assert not stage.iteration.end()
        assert stage.steps[:2] == ["commands", "one"]
        assert "synced" not in stage.steps
        stage.iteration.act()
        assert "synced" in stage.steps
        assert stage.iteration.end()
        stage.steps.clear()
        stage.iteration.act()
        assert "synced" not in stage.steps

    def test_what_was_asked_is_answered_though_clients_send_without_end(self, stage: Stage) -> None:
        stage.iteration.asked.append(1)
        for _ in range(5):
            stage.iteration.taken += 1
            stage.iteration.act()
            assert "synced" not in stage.steps
        stage.loop.now += 1
        stage.iteration.taken += 1
        stage.iteration.act()
        assert "synced" in stage.steps

    def test_what_was_asked_waits_for_what_is_left_for_the_next_iteration(
        self, stage: Stage
    ) -> None:
        stage.iteration.asked.append(1)
        stage.iteration.act()
        stage.iteration.end()
        stage.iteration.soon(print)
        stage.iteration.act()
        assert "synced" not in stage.steps
        stage.iteration.end()
        stage.iteration.act()
        assert "synced" in stage.steps


class TestEnding:
    def test_messages_are_sent_before_answers(self, stage: Stage) -> None:
        Sender(stage, "one")
        Sender(stage, "two")
        assert stage.iteration.end()
        # Once more, since a sender may have acknowledged something.
        assert stage.steps == ["messages", "one", "two", "messages"]

    def test_messages_are_sent_without_an_answer(self, stage: Stage) -> None:
        assert stage.iteration.end()
        assert stage.steps == ["messages"]

    def test_nothing_is_sent_twice(self, stage: Stage) -> None:
        Sender(stage, "one")
        stage.iteration.end()
        stage.steps.clear()
        stage.iteration.end()
        assert stage.steps == ["messages"]

    def test_what_is_sent_now_follows_the_messages_and_is_not_sent_again(
        self, stage: Stage
    ) -> None:
        Sender(stage, "other")
        stage.iteration.send_now(Sender(stage, "much"))
        assert stage.steps == ["messages", "much"]
        stage.steps.clear()
        stage.iteration.end()
        assert stage.steps == ["messages", "other", "messages"]

    def test_the_loop_does_not_wait_where_something_is_to_be_called(self, stage: Stage) -> None:
        stage.iteration.soon(stage.steps.append, "called")
        assert not stage.iteration.end()
        assert stage.iteration.end()
        assert stage.loop.soon == [(stage.steps.append, ("called",))]

    def test_nor_where_sending_has_scheduled_it(self, stage: Stage) -> None:
        sender = Sender(stage, "one")
        sender.send = lambda: stage.iteration.soon(print)  # type: ignore[method-assign]
        assert not stage.iteration.end()


class TestStreams:
    """What a real connection has received waits for the commands too."""

    @pytest.mark.parametrize("size", [1, LARGE - 1, LARGE, 4 * LARGE])
    def test_a_command_reaches_it_before_what_the_client_sent(
        self, connection: Connection, size: int
    ) -> None:
        steps: list[str] = []
        connection.stream.start(None)
        connection.iteration.read_commands = lambda: steps.append("commands")
        connection.receiver.react = lambda: steps.append("data")
        connection.client.sendall(b"x" * size)
        connection.run_until(lambda: len(connection.receiver.data) == size)
        acts = [at for at, step in enumerate(steps) if step == "data"]
        assert acts
        assert all(steps[at - 1] == "commands" for at in acts)

    def test_its_answer_follows_the_message_about_it(self, connection: Connection) -> None:
        seen: list[bytes] = []

        def flush() -> None:
            connection.client.setblocking(False)
            try:
                seen.append(connection.client.recv(100))
            except BlockingIOError:
                seen.append(b"")

        connection.stream.start(None)
        connection.iteration.outbox.flush = flush  # type: ignore[method-assign]
        connection.stream.write(b"answer")
        connection.iteration.end()
        assert seen == [b"", b"answer"]

    @pytest.mark.parametrize("size", [1, LARGE - 1, LARGE])
    @pytest.mark.parametrize("then", [True, False], ids=["then more", "alone"])
    def test_what_is_asked_is_answered_after_everything_that_has_come(
        self, connection: Connection, other: Connection, size: int, then: bool
    ) -> None:
        """Much is acted on at once, while the other client's has not been received."""
        after: list[tuple[int, int]] = []
        iteration = connection.iteration

        def synced(message: Message) -> None:
            after.append((len(connection.receiver.data), len(other.receiver.data)))

        iteration.outbox.send = synced  # type: ignore[method-assign]
        connection.stream.start(None)
        other.stream.start(None)
        connection.client.sendall(b"x" * size)
        if then:
            other.client.sendall(b"y")
        iteration.asked.append(1)
        connection.run_until(lambda: bool(after))
        assert after == [(size, int(then))]
