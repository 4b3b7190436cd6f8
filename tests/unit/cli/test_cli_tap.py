"""`covey tap`: what is asked of the broker, what is printed, and that every matching message is accounted for."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from covey.errors import ConnectionLost, NotFound


class FakeTap:
    """A broker's tap: hands out batches, counts as the real one does."""

    def __init__(self, *batches: list[dict[str, Any]], matched: int | None = None, dropped: int = 0) -> None:
        self.batches = list(batches)
        self.waiting = sum(map(len, batches))
        self.matched = matched if matched is not None else self.waiting + dropped
        self.dropped = dropped
        self.fetched = 0
        self.attached: list[dict[str, Any]] = []
        self.at_end: Callable[[], None] = lambda: signal.raise_signal(signal.SIGINT)
        self.ended = False

    def counters(self) -> dict[str, int]:
        return {
            "passed": 100,
            "matched": self.matched,
            "fetched": self.fetched,
            "dropped": self.dropped,
            "waiting": self.waiting,
        }

    def attach(self, **given: Any) -> dict[str, Any]:
        self.attached.append(given)
        return {"tap": 1, "node": 1}

    def next(self, tap: int, wait: float) -> dict[str, Any]:
        if not self.batches:
            if not self.ended:
                self.ended = True  # a second signal would end the command hard
                self.at_end()
            return {"records": [], "counters": self.counters()}
        records = self.batches.pop(0)
        self.waiting -= len(records)
        self.fetched += len(records)
        return {"records": records, "counters": self.counters()}

    def detach(self, tap: int) -> dict[str, Any]:
        records = self.batches.pop(0) if self.batches else []
        self.waiting -= len(records)
        self.fetched += len(records)
        return {"records": records, "counters": self.counters()}

    def put_on(self, bus: Any) -> FakeTap:
        bus.answers["bus", "tap_attach"] = self.attach
        bus.answers["bus", "tap_next"] = self.next
        bus.answers["bus", "tap_detach"] = self.detach
        return self


def record(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "at": 1_700_000_000.25,
        "node": 1,
        "direction": "in",
        "kind": "request",
        "source": "client-1@1",
        "destination": "registry",
        "topic": "get",
        "id": number,
        "cause": "abc",
        "size": 20,
        "body": None,
        "compressed": False,
        **more,
    }


def lines(answer: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    return found[:-1], found[-1]["summary"]


def test_the_filter_goes_to_the_broker(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap().put_on(bus)
    answer = covey("tap", 'size > 10 && topic =~ "a*"', "--kind", "event", "--source", "client-*", "--payload")
    assert answer.exit_code == 0, answer.stderr
    assert tap.attached == [
        {
            "filter": 'kind == "event" && source =~ "client-*" && (size > 10 && topic =~ "a*")',
            "payload": True,
        }
    ]


def test_a_bad_filter_attaches_nothing(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap().put_on(bus)
    answer = covey("tap", 'knid == "event"')
    assert answer.exit_code == 2
    assert "error[expression.invalid]" in answer.stderr
    assert tap.attached == []


def test_lines_and_the_summary_after_ctrl_c(covey, bus) -> None:  # type: ignore[no-untyped-def]
    FakeTap([record(1), record(2)], [record(3)]).put_on(bus)
    answer = covey("tap")
    shown, summary = lines(answer)
    assert answer.exit_code == 0
    assert [line["id"] for line in shown] == [1, 2, 3]
    assert shown[0] == {
        "at": "2023-11-14T22:13:20.250000Z",
        "node": 1,
        "direction": "in",
        "kind": "request",
        "source": "client-1@1",
        "destination": "registry",
        "topic": "get",
        "id": 1,
        "cause": "abc",
        "size": 20,
    }
    assert summary == {"passed": 100, "matched": 3, "shown": 3, "dropped": 0, "undecodable": 0, "sampled_out": 0}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_count_ends_it_and_the_rest_is_accounted_for(count: int, covey, bus) -> None:  # type: ignore[no-untyped-def]
    FakeTap([record(1), record(2)], [record(3), record(4)], dropped=5).put_on(bus)
    shown, summary = lines(covey("tap", "--count", str(count)))
    assert len(shown) == count == summary["shown"]
    assert summary["matched"] == 9
    assert summary["dropped"] == 9 - count


def test_for_ends_it(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap([record(1)]).put_on(bus)
    tap.at_end = lambda: None
    shown, summary = lines(covey("tap", "--for", "1ms"))
    assert (len(shown), summary["shown"]) == (1, 1)


def test_what_came_meanwhile_is_fetched_at_the_end(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap([record(1)], [record(2)], [record(3)]).put_on(bus)
    first = tap.next

    def interrupted(**given: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return first(**given)

    tap.at_end = lambda: None
    calls = iter([interrupted])

    def answer(**given: Any) -> Any:
        return next(calls, first)(**given)

    bus.answers["bus", "tap_next"] = answer
    shown, summary = lines(covey("tap"))
    assert len(shown) == summary["shown"] == summary["matched"] == 3


def test_the_second_ctrl_c_does_not_wait(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap().put_on(bus)

    def twice() -> None:
        tap.ended = False
        signal.raise_signal(signal.SIGINT)

    tap.at_end = twice
    answer = covey("tap")
    assert answer.exit_code == 130
    assert "summary" in answer.stdout


def test_payload_and_what_does_not_decode(covey, bus) -> None:  # type: ignore[no-untyped-def]
    inner = msgspec.msgpack.encode({"type": "Beat", "term": 3})
    good = record(1, body=msgspec.msgpack.encode({"key": "/a", "raw": b"\xff", "body": inner}))
    bad = record(2, body=b"\xc1\xc1")
    FakeTap([good, bad]).put_on(bus)
    shown, summary = lines(covey("tap", "--payload"))
    assert shown[0]["body"] == {"key": "/a", "raw": "ff", "body": {"type": "Beat", "term": 3}}
    assert shown[1]["body"] == "c1 c1"
    assert "undecodable" in shown[1]
    assert summary == {"passed": 100, "matched": 2, "shown": 1, "dropped": 0, "undecodable": 1, "sampled_out": 0}


def test_a_broker_that_goes_away_still_gives_a_summary(covey, bus) -> None:  # type: ignore[no-untyped-def]
    tap = FakeTap([record(1)]).put_on(bus)

    def lost(tap: int, wait: float) -> Any:
        return ConnectionLost("the broker was restarted") if wait else NotFound("no such tap")

    calls = iter([tap.next])

    def answer_once(**given: Any) -> Any:
        return next(calls, lost)(**given)

    bus.answers["bus", "tap_next"] = answer_once
    bus.answers["bus", "tap_detach"] = NotFound("no such tap")
    answer = covey("tap", "-o", "json")
    assert answer.exit_code == 1
    *_, error, last = [json.loads(line) for line in answer.stdout.splitlines()]
    assert error["error"]["code"] == "bus.connection_lost"
    assert last["summary"]["shown"] == last["summary"]["matched"] == 1


def test_text_for_a_person(covey, bus) -> None:  # type: ignore[no-untyped-def]
    FakeTap([record(7, body=msgspec.msgpack.encode({"key": "\x1b[2J"}))], dropped=2).put_on(bus)
    answer = covey("tap", "--payload", "-o", "table")
    first, second, last = answer.stdout.splitlines()
    assert "n1 in  req  client-1@1 > registry  get  20 B  id 7  cause abc" in first
    assert second == "    key=\\x1b[2J"
    assert last == "100 passed, 3 matched = 1 shown + 2 dropped + 0 undecodable + 0 sampled out"
    assert "2 matching messages not shown" in answer.stderr


def test_several_brokers(covey, bus) -> None:  # type: ignore[no-untyped-def]
    FakeTap([record(1)], [record(2, node=3)]).put_on(bus)
    bus.answers["dcm", "node_ls"] = [
        {"number": 1, "name": "n1", "state": "online"},
        {"number": 2, "name": "n2", "state": "offline"},
        {"number": 3, "name": "n3", "state": "online"},
    ]
    covey("tap", "--node", "all", "--count", "2")
    attached = [
        options["node"] for (_, verb, _), options in zip(bus.calls, bus.options, strict=True) if "attach" in verb
    ]
    assert attached == [1, 3]
    FakeTap().put_on(bus)
    covey("tap", "--node", "n3")
    assert bus.options[-1]["node"] == 3
