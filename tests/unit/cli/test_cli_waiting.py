"""A wait goes on while the node's own daemon restarts, and ends when that stays away."""

from __future__ import annotations

from typing import Any

from covey.errors import ConnectionLost, NoQuorum

STATUS: dict[str, Any] = {"quorate": True, "nodes": [], "registry": {"phase": "writes", "writable": True}, "view": None}


def after(times: int, problem: Exception) -> Any:
    """Return an answer that fails some times first."""
    left = [problem] * times
    return lambda: left.pop() if left else STATUS


def test_a_daemon_that_comes_back_is_waited_for(covey, bus, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("covey.cli.waiting.PAUSE_SECONDS", 0.001)
    bus.answers["dcm", "cluster_status"] = after(3, ConnectionLost("the broker went away"))
    assert covey("cluster", "wait-for", "quorate").exit_code == 0


def test_a_daemon_that_stays_away_ends_the_wait(covey, bus, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("covey.cli.waiting.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("covey.cli.waiting.GONE_SECONDS", 0.01)
    bus.answers["dcm", "cluster_status"] = ConnectionLost("the broker went away")
    answer = covey("cluster", "wait-for", "quorate", "--timeout", "1m")
    assert (answer.exit_code, "daemon went away during the wait for" in answer.stderr) == (9, True)


def test_what_else_passes_is_waited_for_until_the_timeout(covey, bus, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("covey.cli.waiting.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("covey.cli.waiting.GONE_SECONDS", 0.0)
    bus.answers["dcm", "cluster_status"] = NoQuorum("a majority of the servers does not answer")
    assert covey("cluster", "wait-for", "quorate", "--timeout", "50ms").exit_code == 7
