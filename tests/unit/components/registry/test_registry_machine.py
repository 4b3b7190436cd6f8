"""The server's machine by scripted steps: phases, what is answered when, retries, watches, bounds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from covey.bus.machine import Address, ImpossibleTransition, Persist, Persisted, Publish, Received, Send
from covey.components.registry import entries, messages, reading, records, states
from covey.components.registry.loaded import Damage, Loaded
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.messages import (
    AppendSystem,
    Comparison,
    FindPrimary,
    Get,
    Leading,
    List,
    ListSystem,
    Operation,
    ReadSystem,
    Status,
    Transact,
    Watch,
)
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings
from covey.errors import (
    BadArguments,
    BadKey,
    Compacted,
    CoveyError,
    Damaged,
    KeyNotFound,
    NoQuorum,
    Overloaded,
    ReadOnly,
    Refused,
    StaleEpoch,
    TooLarge,
    UsageError,
)

NewRun = Callable[..., Any]


def put(key: str, value: Any = 1, id: str = "", mod_revision: int | None = None) -> Transact:
    compare = () if mod_revision is None else (Comparison(key, mod_revision),)
    return Transact(id, compare, (Operation("put", key, value),))


def error(run: Any, question: Any) -> CoveyError:
    answer = run.answer(question)
    assert isinstance(answer, CoveyError), answer
    return answer


# --- phases ---------------------------------------------------------------------------------------------------------


def test_phase_one_promises_an_epoch_and_settles_the_tail(run: Any) -> None:
    assert run.machine.deadline == 0.0
    (stands,) = [effect for effect in run.step() if isinstance(effect, Persist)]
    promise = records.decode_only(stands.data[0], records.HARD_STATE)
    assert (promise.epoch, records.decode_vote(promise)) == (2, 1)
    run.sync(1)
    (reigns,) = run.pending
    entry = entries.decode(records.decode(reigns.data[0], 0, records.digest(run.disk[0][0])))
    assert entry == entries.Entry(2, 2, 0, entries.Reigned(1))
    assert run.machine.phase == "stale" and run.machine.leading == Leading(0, 0, "stale", False, 1)
    run.sync()
    assert run.machine.phase == "reads" and run.machine.leading == Leading(2, 1, "reads", False, 2)
    assert run.published[-2] == Publish("registry.leading", Leading(2, 1, "reads", False, 2))
    assert run.published[-1] == Publish(
        "registry.phase", {"phase": "reads", "writable": False, "epoch": 2, "primary": 1}
    )


def test_before_it_is_settled_only_stale_reads_are_answered_and_say_so(run: Any) -> None:
    run.step()
    run.sync(1)
    stale = run.replies[run.ask(Get("/cluster/servers", "stale"))]
    assert stale["consistency"] == "stale" and stale["revision"] == 1
    assert run.replies[run.ask(List("/", "stale"))]["consistency"] == "stale"
    for question in (Get("/cluster/servers"), List("/"), Watch("/", 1, 1.0), ListSystem("k")):
        refused = run.replies[run.ask(question)]
        assert type(refused) is NoQuorum and "phase 1 is not over" in refused.message
    refused = run.replies[run.ask(put("/app/a"))]
    assert type(refused) is ReadOnly and "phase 1 is not over" in refused.message
    run.sync()
    assert run.answer(Get("/cluster/servers"))["consistency"] == "linear"


def test_writes_open_only_with_the_group_and_a_durable_entry(run: Any) -> None:
    run.step()
    run.sync()
    refused = error(run, put("/app/a"))
    assert type(refused) is ReadOnly and "the group sys.registry is not formed yet" in refused.message
    assert run.answer(Status())["closed_because"] == refused.message.removeprefix("writes are closed: ")
    run.step(messages.GroupFormed())
    assert run.machine.phase == "reads"
    refused = run.replies[run.ask(put("/app/a"))]
    assert type(refused) is ReadOnly and "not committed yet" in refused.message
    run.sync()
    assert run.machine.phase == "writes" and run.machine.leading == Leading(2, 1, "writes", True, 3)
    assert run.answer(put("/app/a")) == {"revision": 2, "succeeded": True}
    run.step(messages.GroupFormed())
    assert not run.pending, "the group told twice opens nothing twice"


def test_a_group_that_forms_early_is_remembered(run: Any) -> None:
    run.step()
    run.step(messages.GroupFormed())
    assert run.machine.phase == "stale"
    run.sync()
    run.sync()
    assert run.machine.phase == "writes"


def test_every_start_is_a_new_epoch_and_writes_close_again(run: Any, new_run: NewRun) -> None:
    run.open()
    run.answer(put("/app/a"))
    again = new_run(run.disk)
    again.step()
    again.sync()
    assert again.machine.leading == Leading(3, 1, "reads", False, 5)
    assert type(error(again, put("/app/b"))) is ReadOnly
    status = again.answer(Status())
    assert status["incarnation"] == [0, 3, 5] and status["revision"] == 2


def test_a_damaged_copy_serves_nothing_but_its_status() -> None:
    damage = Damage("/x/log-1", 77, "the checksum does not fit")
    machine = RegistryMachine(1, recover(Loaded(damaged=(damage,)), Settings()), Settings(), Random(1))
    from covey.bus.machine import Asked, Reply

    effects = machine.step(1.0)
    assert not [effect for effect in effects if isinstance(effect, Persist)]
    for number, question in enumerate((Get("/a", "stale"), put("/app/a"), Watch("/", 1, 1.0), ListSystem("k"))):
        (reply,) = machine.step(1.0, Asked(number, question))
        assert isinstance(reply, Reply) and isinstance(reply.result, Damaged)
        assert "/x/log-1 is damaged at byte 77" in reply.result.message
    (reply,) = machine.step(1.0, Asked(9, Status()))
    assert isinstance(reply, Reply)
    assert (reply.result["phase"], reply.result["primary"]) == ("offline", None)
    assert reply.result["servers"] == [
        {"number": 1, "state": "damaged", "incarnation": None, "lag": None},
    ]
    assert (reply.result["incarnation"], reply.result["revision"]) == (None, None)
    assert reply.result["damaged"] == [{"path": "/x/log-1", "position": 77, "reason": "the checksum does not fit"}]
    assert "damaged: /x/log-1 at byte 77" in reply.result["closed_because"]
    machine.step(1.0, messages.GroupFormed())
    (refused,) = machine.step(1.0, Received(Address("groups"), AppendSystem("i", 0, "k", "s", b"")))
    assert isinstance(refused, Send) and isinstance(refused.message, messages.SystemRefused)
    (told,) = machine.step(1.0, Received(Address("registry", 2), FindPrimary()))
    assert isinstance(told, Send) and told.message == Leading(0, 0, "offline", False)
    machine.check_invariants()


def test_the_table_has_every_state_and_an_impossible_input_tells_the_story(run: Any) -> None:
    assert set(states.PHASE) == set(states.WHY_CLOSED) == set(states.State)
    assert {state for state, _ in states.TABLE} | set(states.TABLE.values()) == set(states.State)
    run.open()
    with pytest.raises(ImpossibleTransition, match=r"(?s)state writes; the story:.*settling: Persisted"):
        run.machine.step(200.0, object())
    with pytest.raises(ImpossibleTransition, match="only 3 were ordered"):
        run.machine.step(200.0, Persisted(9))


# --- writing --------------------------------------------------------------------------------------------------------


def test_no_answer_leaves_before_its_entry_is_durable(run: Any) -> None:
    run.open()
    first, second = run.ask(put("/app/a", 1)), run.ask(put("/app/a", 2))
    assert first not in run.replies and second not in run.replies
    with pytest.raises(KeyNotFound):
        raise run.replies[run.ask(Get("/app/a"))]
    run.sync(1)
    assert run.replies[first] == {"revision": 2, "succeeded": True} and second not in run.replies
    assert run.replies[run.ask(Get("/app/a"))]["value"] == 1
    run.sync()
    assert run.replies[second]["revision"] == 3
    assert run.replies[run.ask(Get("/app/a"))] == {
        "key": "/app/a",
        "value": 2,
        "revision": 3,
        "mod_revision": 3,
        "consistency": "linear",
    }


def test_many_orders_end_with_one_sync(run: Any) -> None:
    run.open()
    asked = [run.ask(put(f"/app/{number}")) for number in range(50)]
    orders = run.pending
    run.pending = []
    run.disk.extend(order.data for order in orders)
    run.step(Persisted(orders[-1].number))
    assert [run.replies[request]["revision"] for request in asked] == list(range(2, 52))


def test_comparisons_are_judged_in_log_order(run: Any) -> None:
    run.open()
    one, two = run.ask(put("/app/a", "one", mod_revision=0)), run.ask(put("/app/a", "two", mod_revision=0))
    run.sync()
    assert run.replies[one] == {"revision": 2, "succeeded": True}
    assert run.replies[two] == {"revision": 2, "succeeded": False}
    both = Transact(
        "",
        (Comparison("/app/a", 2),),
        (Operation("delete", "/app/a"), Operation("put", "/app/b", {"n": [1, None, "x", 1.5, True]})),
        (Operation("put", "/app/c"),),
    )
    assert run.answer(both) == {"revision": 3, "succeeded": True}
    assert [item["key"] for item in run.answer(List("/app/"))["items"]] == ["/app/b"]
    assert run.answer(both) == {"revision": 4, "succeeded": False}
    assert run.answer(Transact("", (), (Operation("delete", "/app/zz"),))) == {"revision": 4, "succeeded": True}


def test_a_request_id_is_applied_once_whenever_it_is_asked_again(run: Any, new_run: NewRun) -> None:
    run.open()
    asked = [run.ask(put("/app/a", "x", id="r-1")) for _ in range(3)]
    assert len(run.pending) == 1
    run.sync()
    assert [run.replies[request] for request in asked] == [{"revision": 2, "succeeded": True}] * 3
    run.answer(put("/app/a", "y", id="r-2"))
    assert run.replies[run.ask(put("/app/a", "x", id="r-1"))] == {"revision": 2, "succeeded": True}
    again = new_run(run.disk)
    again.step()
    again.sync()
    answer = again.answer(put("/app/a", "x", id="r-1"))
    assert answer == {"revision": 2, "succeeded": True}, "known, so it is no write and needs no open writes"
    assert again.answer(Get("/app/a"))["value"] == "y"


def test_what_can_never_be_stored_is_refused_before_the_log(run: Any) -> None:
    run.open()
    cases: list[tuple[Any, type[CoveyError], str]] = [
        (put("app/a"), BadKey, "does not begin with a slash"),
        (put("/app//a"), BadKey, "empty part"),
        (put("/app/"), BadKey, "empty part"),
        (put("/"), BadKey, "empty part"),
        (put("/app/" + "x" * 508), BadKey, "513 bytes"),
        (put("/app/" + "ü" * 254), BadKey, "513 bytes"),
        (put("/app/a\n"), BadKey, "cannot be printed"),
        (put("/app/\ud800"), BadKey, "not valid Unicode"),
        (put("/app/a", b"bytes"), BadArguments, "holds a bytes"),
        (put("/app/a", {1: 2}), BadArguments, "names in JSON are text"),
        (put("/app/a", float("nan")), BadArguments, "JSON does not have"),
        (put("/app/a", 1 << 70), BadArguments, "64 bits"),
        (put("/app/a", "x" * (1 << 20)), TooLarge, "at most 1048576"),
        (put("/app/a", id="x" * 513), BadArguments, "request id"),
        (Transact("", (), (Operation("put", "/app/a"), Operation("delete", "/app/a"))), BadArguments, "stands twice"),
        (Transact("", (Comparison("x", 0),)), BadKey, "slash"),
        (
            Transact("", (), tuple(Operation("put", f"/app/{n}", "x" * (1 << 19)) for n in range(9))),
            TooLarge,
            "the transaction has",
        ),
        (Transact("", tuple(Comparison(f"/app/{n}", 0) for n in range(4097))), TooLarge, "4096"),
        (put("/cluster/servers", {"servers": [1, 2], "primary": 1}), Refused, "define-server"),
        (Transact("", (), (Operation("delete", "/cluster/servers"),)), Refused, "define-server"),
        (AppendSystem("i", 2, "", "s", b""), BadArguments, "needs a kind"),
        (AppendSystem("i", 2, "k", "s", b"", keep=-1), BadArguments, "keeps 0 to"),
        (AppendSystem("i", 2, "k" * 513, "s", b""), BadArguments, "kind"),
        (AppendSystem("i", 2, "k", "s", bytes((1 << 20) + 1)), TooLarge, "at most"),
        (Get("x"), BadKey, "did you mean '/app/x'"),
        (List("app"), BadKey, "stands for all keys"),
        (Watch("/", -1, 0), UsageError, "no revision -1"),
        (object(), UsageError, "cannot answer object"),
    ]
    for question, expected, text in cases:
        answer = run.replies[run.ask(question)]
        assert type(answer) is expected and text in answer.message + answer.hint, (question, answer)
        assert not run.pending
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    assert "64 levels" in error(run, put("/app/a", deep)).message
    assert run.answer(put("/app/a", "x" * ((1 << 20) - 5)))["succeeded"]
    assert run.answer(put("/app/" + "x" * 507))["succeeded"]


def test_a_slow_disk_is_no_reason_to_grow_without_bound(new_run: NewRun) -> None:
    run = new_run(settings=Settings(proposals=3)).open()
    asked = [run.ask(put(f"/app/{number}", id=f"r-{number}")) for number in range(5)]
    assert [type(run.replies.get(request)) for request in asked] == [type(None)] * 3 + [Overloaded] * 2
    retried = run.ask(put("/app/1", id="r-1"))
    run.sync()
    assert run.replies[retried] == run.replies[asked[1]]
    run = new_run(settings=Settings(proposal_bytes=1000)).open()
    run.ask(put("/app/a", "x" * 2000))
    assert type(run.replies[run.ask(put("/app/b"))]) is Overloaded


# --- system entries -------------------------------------------------------------------------------------------------


def test_system_entries_are_taken_before_writes_open_and_fenced_by_the_epoch(run: Any, new_run: NewRun) -> None:
    run.step()
    run.sync(1)
    assert type(run.replies[run.ask(AppendSystem("a", 2, "v", "", b"1"))]) is ReadOnly
    run.sync()
    assert run.answer(AppendSystem("a", 2, "v", "", b"1", keep=2)) == {"index": 3, "epoch": 2}
    assert run.answer(AppendSystem("a", 2, "v", "", b"other", keep=2)) == {"index": 3, "epoch": 2}
    for number in (2, 3):
        run.answer(AppendSystem(f"a{number}", 2, "v", "", b"%d" % number, keep=2))
    stale = error(run, AppendSystem("b", 1, "v", "", b"x"))
    assert type(stale) is StaleEpoch and stale.details == {"epoch": 2}
    kept = run.answer(ListSystem("v"))
    assert kept == {
        "entries": [
            {"index": 4, "epoch": 2, "slot": "", "body": b"2"},
            {"index": 5, "epoch": 2, "slot": "", "body": b"3"},
        ],
        "epoch": 2,
        "more": False,
    }
    assert run.answer(ListSystem("v", since_index=4))["entries"] == kept["entries"][1:]
    part = reading.system(run.machine.store, ListSystem("v"), 2, most=1)
    assert part == {"entries": kept["entries"][:1], "epoch": 2, "more": True}
    assert run.answer(Status())["revision"] == 1, "system entries are no revisions"
    again = new_run(run.disk)
    again.step()
    again.sync()
    assert again.answer(ListSystem("v")) == kept | {"epoch": 3}
    assert again.answer(AppendSystem("a3", 2, "v", "", b"3")) == {"index": 5, "epoch": 2}, "a retry over a restart"
    assert type(error(again, AppendSystem("c", 2, "v", "", b"3"))) is StaleEpoch


def test_a_components_own_transaction_needs_a_primary_only(run: Any) -> None:
    rename = Transact("", (), (Operation("put", "/nodes/1", {"id": "new"}),), (), system=True)
    run.step()
    run.sync(1)
    assert type(run.replies[run.ask(rename)]) is ReadOnly
    run.sync()
    assert type(run.replies[run.ask(put("/nodes/1"))]) is ReadOnly
    assert run.answer(rename) == {"revision": 2, "succeeded": True}
    assert run.answer(Get("/nodes/1"))["value"] == {"id": "new"}


def test_machines_ask_by_message_and_hear_when_it_is_durable(run: Any) -> None:
    liveness = Address("liveness", 1)
    run.step()
    run.sync(1)
    run.step(Received(liveness, AppendSystem("a", 2, "v", "s", b"1"), "why"))
    run.step(Received(liveness, ReadSystem("q", "v")))
    assert [(one.to, type(one.message).__name__) for one in run.sent] == [(liveness, "SystemRefused")] * 2
    assert run.sent[0].message.epoch == 0 and "phase 1" in run.sent[0].message.reason
    run.sync()
    run.sent.clear()
    run.step(Received(liveness, AppendSystem("a", 2, "v", "s", b"1"), "why"))
    run.step(Received(liveness, ReadSystem("q", "v")))
    assert [one.message for one in run.sent] == [messages.SystemRead("q", (), 2)]
    run.sync()
    assert run.sent[-1] == Send(liveness, messages.SystemAppended("a", 3, 2), "why")
    run.step(Received(liveness, ReadSystem("q", "v")))
    assert run.sent[-1].message == messages.SystemRead("q", (("s", 3, 2, b"1"),), 2)
    run.step(Received(liveness, AppendSystem("b", 1, "v", "s", b"1")))
    assert run.sent[-1].message == messages.SystemRefused("b", 2, run.sent[-1].message.reason)
    for _, message in enumerate(one.message for one in run.sent):
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=messages.AnyMessage)
        assert decoded == message


def test_agents_are_answered_and_told_of_changes(new_run: NewRun) -> None:
    run = new_run(settings=Settings(askers=2, asker_seconds=5.0))
    run.step()
    for node in (4, 5, 6):
        run.step(Received(Address("registry", node), FindPrimary()))
    assert [one.message for one in run.sent] == [Leading(0, 0, "stale", False, 1)] * 3
    run.sent.clear()
    run.sync()
    told = Leading(2, 1, "reads", False, 2)
    assert [(one.to.node, one.message) for one in run.sent] == [(4, told), (5, told)]
    run.sent.clear()
    run.step(messages.PeerDown(4))
    run.now += 4.0
    run.step(Received(Address("registry", 7), FindPrimary()))
    run.now += 2.0
    run.sent.clear()
    run.step(messages.GroupFormed())
    run.sync()
    assert [(one.to.node, one.message.writable) for one in run.sent] == [(7, True)], "5 asked too long ago"


# --- watching -------------------------------------------------------------------------------------------------------


def events(batch: dict[str, Any]) -> list[tuple[int, str, Any]]:
    return [(one["revision"], one["key"], one["value"]) for one in batch["events"]]


def test_a_watcher_is_answered_at_once_or_when_something_comes(run: Any) -> None:
    run.open()
    run.answer(put("/app/a", 1))
    at_once = run.replies[run.ask(Watch("/app/", 2, 30.0))]
    assert at_once == {
        "from": 2,
        "to": 2,
        "events": [{"type": "put", "key": "/app/a", "value": 1, "revision": 2}],
    }
    waits = run.ask(Watch("/app/b", 3, 30.0))
    run.answer(put("/app/a", 2))
    assert waits not in run.replies
    run.answer(
        Transact(
            "", (), (Operation("delete", "/app/a"), Operation("put", "/app/b", 4), Operation("put", "/app/b/c", 5))
        )
    )
    assert run.replies[waits] == {
        "from": 3,
        "to": 4,
        "events": [
            {"type": "put", "key": "/app/b", "value": 4, "revision": 4},
            {"type": "put", "key": "/app/b/c", "value": 5, "revision": 4},
        ],
    }
    assert run.replies[run.ask(Watch("/app/a", 4, 30.0))]["events"] == [
        {"type": "delete", "key": "/app/a", "value": None, "revision": 4}
    ]


def test_an_empty_batch_at_the_deadline_says_how_far_it_is(run: Any) -> None:
    run.open()
    waits = run.ask(Watch("/none", 2, 30.0))
    assert run.machine.deadline == pytest.approx(run.now + 30.0)
    run.answer(put("/app/a"))
    run.now += 29.0
    run.step()
    assert waits not in run.replies
    run.now += 1.0
    run.step()
    assert run.replies[waits] == {"from": 2, "to": 2, "events": []}
    assert run.machine.deadline is None


def test_from_now_on_and_from_the_future(run: Any) -> None:
    run.open()
    assert run.replies[run.ask(Watch("/", 0, 30.0))] == {"from": 2, "to": 1, "events": []}
    future = run.ask(Watch("/app/", 4, 30.0))
    for value in range(3):
        assert future not in run.replies
        run.answer(put("/app/a", value))
    assert events(run.replies[future]) == [(4, "/app/a", 2)]
    short = run.ask(Watch("/app/", 9, 1.0))
    run.now += 1.0
    run.step()
    assert run.replies[short] == {"from": 9, "to": 8, "events": []}


def test_what_is_no_longer_kept_is_compacted_with_the_place_to_go_on(new_run: NewRun) -> None:
    run = new_run(settings=Settings(history_changes=3)).open()
    for value in range(10):
        run.answer(put("/app/a", value))
    refused = run.replies[run.ask(Watch("/app/", 8, 1.0))]
    assert type(refused) is Compacted and refused.details == {"compacted": 9, "revision": 11}
    assert len(run.replies[run.ask(Watch("/app/", 9, 1.0))]["events"]) == 3


def test_watchers_wait_through_one_sync_of_many_changes_without_loss(new_run: NewRun) -> None:
    run = new_run(settings=Settings(history_changes=2)).open()
    waits = run.ask(Watch("/app/", 2, 30.0))
    for value in range(6):
        run.ask(put("/app/a", value))
    orders, run.pending = run.pending, []
    run.disk.extend(order.data for order in orders)
    run.step(Persisted(orders[-1].number))
    assert events(run.replies[waits]) == [(2, "/app/a", 0)]


def test_batches_are_bounded_and_contiguous(new_run: NewRun) -> None:
    run = new_run(settings=Settings(watch_bytes=1000)).open()
    for value in range(20):
        run.answer(put("/app/a", f"{value:0200d}"))
    seen, start, batches = [], 2, 0
    while start <= 21:
        batch = run.replies[run.ask(Watch("/app/", start, 30.0))]
        assert batch["from"] == start
        seen += [revision for revision, _, _ in events(batch)]
        start, batches = batch["to"] + 1, batches + 1
    assert seen == list(range(2, 22)) and batches > 3


def test_watchers_are_bounded(new_run: NewRun) -> None:
    run = new_run(settings=Settings(watches=2)).open()
    asked = [run.ask(Watch("/app/", 2, 30.0)) for _ in range(3)]
    assert type(run.replies[asked[2]]) is Overloaded
    run.answer(put("/app/a"))
    assert run.replies[asked[0]] == run.replies[asked[1]]
    for _ in range(300):
        run.ask(Watch("/app/", run.machine.store.revision + 1, 30.0))
        run.answer(put("/app/a"))


# --- snapshots ------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_made_when_the_log_is_worth_it(new_run: NewRun) -> None:
    run = new_run(settings=Settings(snapshot_bytes=3000)).open()
    while not run.snapshots:
        run.answer(put("/app/a", "x" * 100))
    index = run.machine.store.index
    record = records.decode_only(run.snapshots[0], records.SNAPSHOT)
    assert record.index == index
    for _ in range(100):
        run.answer(put("/app/a", "x" * 100))
    assert len(run.snapshots) == 1, "one at a time"
    run.step(messages.SnapshotFailed(index, "no room"))
    assert len(run.snapshots) == 2
    run.step(messages.SnapshotWritten(run.machine.store.index))
    found = recover(Loaded(snapshot=records.decode_only(run.snapshots[1], records.SNAPSHOT)), Settings())
    assert found.store.image() == run.machine.store.image()
    assert found.chain == records.digest(run.disk[-1][0])


def test_status_of_an_open_registry(run: Any) -> None:
    run.open()
    run.answer(put("/app/a"))
    status = run.answer(Status())
    assert status | {"state_hash": ""} == {
        "phase": "writes",
        "writable": True,
        "closed_because": None,
        "incarnation": [0, 2, 4],
        "epoch": 2,
        "revision": 2,
        "history_start": 1,
        "keys": 4,
        "state_hash": "",
        "primary": 1,
        "servers": [{"number": 1, "state": "primary", "incarnation": [0, 2, 4], "lag": 0}],
        "tolerates": 0,
        "damaged": [],
        "repaired": [],
    }
