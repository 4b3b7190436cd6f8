"""What a party serves: batches in, batches out, exactly one answer each; no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from covey import errors
from covey.bus import codec
from covey.bus.messages import Header, Kind, Role
from covey.bus.service import Request, Service, current_cause, verb
from covey.bus.serving import Serving


class Store:
    """A service as authors write one."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.gate = asyncio.Event()
        self.futures: dict[str, asyncio.Future[Any]] = {}

    @verb()
    def put(self, *, key: str, value: int = 0) -> str:
        """Run at once."""
        self.seen.append((key, value))
        return f"{key}={value}"

    @verb()
    async def wait(self, request: Request, *, key: str) -> str:
        """Wait for the gate."""
        try:
            await self.gate.wait()
        finally:
            self.seen.append((key, request.cause, current_cause.get()))
        return key

    @verb()
    def later(self, *, key: str) -> asyncio.Future[Any]:
        """Return a future that somebody else ends; the one of `now` has ended."""
        self.seen.append((key, current_cause.get()))
        future = self.futures[key] = asyncio.get_running_loop().create_future()
        if key == "now":
            future.set_result(key)
        return future

    @verb()
    def chosen(self, *, key: str) -> Any:
        """Return a coroutine though it is none."""
        return self.wait(Request("", 0, Role.LOOK), key=key)

    @verb()
    def who(self, request: Request) -> list[Any]:
        """Say who asks."""
        return [request.source, request.role.name, request.cause, request.request_id, request.uid]

    @verb(Role.COMPONENT)
    def secret(self) -> None:
        """Not for everybody."""

    @verb()
    def fail(self, *, how: str) -> Any:
        """Fail in one of many ways."""
        if how == "covey":
            raise errors.ReadOnly("cannot now", primary=3)
        if how == "bug":
            raise ValueError("oops")
        if how == "object":
            return object()
        return bytes(codec.MAX_BODY + 1)

    @verb()
    async def cancelled(self) -> None:
        """Be cancelled by something of its own."""
        raise asyncio.CancelledError

    @verb()
    def any(self, **fields: Any) -> dict[str, Any]:
        """Take anything."""
        return fields


class Place:
    """A party that serves, and the answers it gives."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Kind, Any]] = []
        self.causes: list[str] = []
        self.store = Store()
        self.serving = Serving(self)  # type: ignore[arg-type]
        self.serving.services["store"] = Service("store", self.store)

    def add(self, kind: Kind, destination: str, topic: str, item: bytes, number: int, cause: str) -> None:
        assert destination == "asker@2"
        value = codec.decode_error(item) if kind is Kind.ERROR else codec.decode_body(item)
        self.answers.append((number, kind, value))
        self.causes.append(cause)

    def ask(self, verb: str, *arguments: Any, ids: tuple[int, ...] | None = None, **header: Any) -> None:
        numbers = tuple(range(1, len(arguments) + 1)) if ids is None else ids
        message = Header(
            Kind.REQUEST, numbers, "asker@2", header.pop("to", "store"), f"store.{verb}", len(arguments), **header
        )
        items = [each if isinstance(each, bytes) else codec.encode_item(each) for each in arguments]
        self.serving.take(message, codec.join_items(items))

    def results(self) -> list[Any]:
        assert all(kind is Kind.REPLY for _, kind, _ in self.answers), self.answers
        return [result for _, _, result in self.answers]

    def errors(self) -> list[Any]:
        assert all(kind is Kind.ERROR for _, kind, _ in self.answers), self.answers
        return [type(error) for _, _, error in self.answers]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


def story(test: Callable[[Place], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def inside() -> None:
            place = Place()
            await test(place)
            await place.serving.close()

        asyncio.run(inside())

    return run


@story
async def test_a_batch_for_a_verb_that_need_not_wait_is_answered_at_once_in_order(place: Place) -> None:
    place.ask("put", {"key": "a"}, {"key": "b", "value": 2}, {"key": "c"})
    assert place.results() == ["a=0", "b=2", "c=0"]
    assert [number for number, _, _ in place.answers] == [1, 2, 3]
    assert len(asyncio.all_tasks()) == 1


@story
async def test_only_the_bad_ones_of_a_batch_are_refused(place: Place) -> None:
    place.ask("put", {"key": "a"}, {"keys": "b"}, {"key": 7}, "text", {"key": "e", "value": 5})
    kinds = [kind for _, kind, _ in place.answers]
    assert kinds == [Kind.REPLY, Kind.ERROR, Kind.ERROR, Kind.ERROR, Kind.REPLY]
    refused = [error for _, kind, error in place.answers if kind is Kind.ERROR]
    assert all(isinstance(error, errors.BadArguments) and "put(key, value=…)" in error.hint for error in refused)
    assert place.store.seen == [("a", 0), ("e", 5)]


@story
async def test_a_body_that_is_no_batch_is_malformed_and_runs_nothing(place: Place) -> None:
    message = Header(Kind.REQUEST, (1, 2, 3), "asker@2", "store", "store.put", 3)
    for body in (b"", b"\xc1", codec.encode_item([{"key": "a"}]), b"\x93" + codec.encode_item({"key": "a"}) * 2):
        place.answers.clear()
        place.serving.take(message, body)
        assert [(number, type(error)) for number, _, error in place.answers] == [
            (number, errors.Malformed) for number in (1, 2, 3)
        ]
    assert not place.store.seen


@story
async def test_every_refusal_is_told_to_each_of_a_batch(place: Place) -> None:
    place.ask("nothing", {}, {})
    place.ask("secret", {}, {}, role=Role.ADMIN)
    place.serving.services["store"].cluster_id = "c1"
    place.ask("put", {"key": "a"}, {"key": "b"}, cluster="c2")
    place.ask("put", {}, {}, to="gone")
    assert place.errors() == [
        each for kind in (errors.NoVerb, errors.Denied, errors.WrongCluster, errors.NoService) for each in (kind, kind)
    ]


@story
async def test_what_a_verb_raises_or_returns_by_mistake_is_told(place: Place) -> None:
    place.ask("fail", {"how": "covey"}, {"how": "bug"}, {"how": "object"}, {"how": "large"})
    assert place.errors() == [errors.ReadOnly, errors.InternalError, errors.CoveyError, errors.TooLarge]
    assert "ValueError: oops (fail, line" in place.answers[1][2].message
    place.ask("cancelled", {}, ids=(9,))
    await asyncio.sleep(0.001)
    assert place.answers[-1][:2] == (9, Kind.ERROR)


@story
async def test_verbs_that_wait_run_side_by_side_and_keep_their_stories(place: Place) -> None:
    place.ask("wait", {"key": "a"}, {"key": "b"}, causes=("one", "two"))
    place.ask("wait", {"key": "c"}, ids=(5,))
    place.ask("put", {"key": "d"}, ids=(6,))
    assert place.results() == ["d=0"]
    assert current_cause.get() == ""
    place.store.gate.set()
    await until(lambda: len(place.answers) == 4)
    assert sorted(place.results()) == ["a", "b", "c", "d=0"]
    assert place.store.seen[1:] == [("a", "one", "one"), ("b", "two", "two"), ("c", "asker@2#5", "asker@2#5")]
    assert place.causes == ["", "one", "two", ""]


@story
async def test_a_verb_past_its_budget_is_cancelled_and_answered_once(place: Place) -> None:
    place.ask("wait", {"key": "a"}, budget=0.01)
    await until(lambda: bool(place.answers))
    assert place.errors() == [errors.Timeout]
    await asyncio.sleep(0.001)
    assert place.store.seen == [("a", "asker@2#1", "asker@2#1")]
    assert len(place.answers) == 1 and not place.serving._waiting


@story
async def test_a_verb_that_returns_futures_takes_no_task_and_is_answered_when_each_ends(place: Place) -> None:
    place.ask("later", {"key": "a"}, {"key": "now"}, {"key": "b"}, {"key": "c"}, {"key": "d"}, causes=("one",) * 5)
    assert place.answers == [(2, Kind.REPLY, "now")] and len(asyncio.all_tasks()) == 1
    assert place.store.seen[0] == ("a", "one") and current_cause.get() == ""
    ends = place.store.futures
    ends["b"].set_result(7)
    ends["a"].set_exception(errors.ReadOnly("cannot now"))
    ends["c"].set_exception(ValueError("oops"))
    ends["d"].cancel()
    await until(lambda: len(place.answers) == 5)
    assert place.answers[1] == (3, Kind.REPLY, 7)
    assert [(number, type(error)) for number, _, error in place.answers[2:]] == [
        (1, errors.ReadOnly),
        (4, errors.InternalError),
        (5, errors.InternalError),
    ]
    assert "its work was cancelled" in place.answers[4][2].message
    assert place.causes[1:] == ["one"] * 4 and not place.serving._waiting


@story
async def test_a_future_past_its_budget_is_cancelled_and_answered_once(place: Place) -> None:
    place.ask("later", {"key": "a"}, budget=0.01)
    await until(lambda: bool(place.answers))
    assert place.errors() == [errors.Timeout] and place.store.futures["a"].cancelled()
    await asyncio.sleep(0.001)
    assert len(place.answers) == 1 and not place.serving._waiting


@story
async def test_when_a_party_ends_its_futures_are_cancelled_and_nobody_is_answered(place: Place) -> None:
    place.ask("later", {"key": "a"})
    await place.serving.close()
    assert place.store.futures["a"].cancelled() and not place.answers


def test_what_waits_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.bus.service.MAX_SERVED", 2)

    @story
    async def busy(place: Place) -> None:
        place.ask("later", {"key": "a"}, {"key": "b"}, {"key": "c"}, role=Role.ADMIN)
        place.ask("chosen", {"key": "d"}, ids=(4,), role=Role.ADMIN)
        assert [number for number, _, _ in place.answers] == [3, 4]
        assert place.errors() == [errors.Overloaded] * 2
        assert [key for key, _ in place.store.seen] == ["a", "b"]
        place.store.futures["a"].set_result(1)
        await asyncio.sleep(0)
        place.ask("chosen", {"key": "e"}, ids=(5,), role=Role.ADMIN)
        place.store.gate.set()
        await until(lambda: len(place.answers) == 4)
        assert place.answers[-1] == (5, Kind.REPLY, "e")

    busy()


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_mad_budget_is_none(budget: float) -> None:
    @story
    async def mad(place: Place) -> None:
        place.ask("wait", {"key": "a"}, budget=budget)
        place.store.gate.set()
        await until(lambda: bool(place.answers))
        assert place.results() == ["a"]

    mad()


def test_a_party_works_on_so_many_requests_and_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.bus.service.MAX_SERVED", 2)

    @story
    async def busy(place: Place) -> None:
        place.ask("wait", {"key": "a"}, {"key": "b"}, {"key": "c"}, role=Role.ADMIN)
        assert [(number, kind) for number, kind, _ in place.answers] == [(3, Kind.ERROR)]
        assert place.errors() == [errors.Overloaded]
        place.ask("put", {"key": "d"}, ids=(4,))  # what need not wait takes no place
        assert place.answers[-1] == (4, Kind.REPLY, "d=0")

    busy()


@story
async def test_notes_are_handled_and_not_answered(place: Place) -> None:
    place.ask("put", {"key": "a"}, {"key": "b"}, ids=())
    place.ask("put", {"nothing": "a"}, ids=())
    place.ask("nothing", {"nothing": "a"}, ids=())
    assert place.store.seen == [("a", 0), ("b", 0)] and not place.answers


@story
async def test_a_verb_learns_who_asks(place: Place) -> None:
    place.ask("who", {}, {}, role=Role.OPERATOR, uid=7, request_ids=("", "r2"), causes=("story",))
    assert place.results() == [
        ["asker@2", "OPERATOR", "story", "", 7],
        ["asker@2", "OPERATOR", "story", "r2", 7],
    ]


@story
async def test_a_verb_that_takes_any_argument_gets_it(place: Place) -> None:
    place.ask("any", {"x": 1}, {"y": [2]})
    assert place.results() == [{"x": 1}, {"y": [2]}]


@story
async def test_a_service_that_ends_tells_those_who_wait_and_leaves_the_others(place: Place) -> None:
    place.serving.services["other"] = Service("other", {"wait": place.store.wait})
    place.ask("wait", {"key": "a"})
    place.ask("later", {"key": "b"}, ids=(2,))
    message = Header(Kind.REQUEST, (3,), "asker@2", "other@1", "other.wait", 1)
    place.serving.take(message, codec.encode_item({"key": "c"}))
    await asyncio.sleep(0)
    place.serving.end("store")
    assert [(number, type(error)) for number, _, error in place.answers] == [
        (1, errors.ServiceDied),
        (2, errors.ServiceDied),
    ]
    await asyncio.sleep(0)
    assert [key for key, *_ in place.store.seen] == ["b", "a"]  # the work itself was ended
    place.ask("wait", {"key": "d"}, ids=(4,))
    assert type(place.answers[-1][2]) is errors.NoService
    place.store.gate.set()
    await until(lambda: len(place.answers) == 4)
    assert place.answers[-1] == (3, Kind.REPLY, "c")
