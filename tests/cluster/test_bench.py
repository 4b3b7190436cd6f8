"""The measuring programs run and their books add up. How quick anything is, is not judged here."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.testing import Node

Bench = Callable[..., dict[str, Any]]
BENCH = Path(__file__).resolve().parents[2] / "bench"
SMALL = ["--rounds", "1", "--seconds", "0.05", "--idle-seconds", "0.1", "--json"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """`run("size.py", "--json")` runs a program as the command would, in this process, which has covey imported."""

    def program(name: str, *arguments: str) -> dict[str, Any]:
        monkeypatch.syspath_prepend(BENCH)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            runpy.run_path(str(BENCH / name), run_name="__main__")
        except SystemExit as end:
            assert not end.code, (end.code, capsys.readouterr())
        said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err
        found: dict[str, Any] = json.loads(said.out)
        return found

    return program


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons are started as in other tests also where a program measures Pythons that import covey by themselves."""
    monkeypatch.setattr(Node, "_fresh", property(lambda _: False, lambda _, fresh: None), raising=False)


@pytest.mark.cluster
def test_bench_bus_measures_covey_and_the_limit(run: Bench) -> None:
    found = run("bus.py", *SMALL, "--systems", "covey,limit,bare")
    assert not found["not_measured"]
    for row, figure in (("round_trip", "p99"), ("pipelined", "rate"), ("events", "rate")):
        systems = found["rows"][row]["systems"]
        assert set(systems) - {"bare"} == {"covey", "limit"}
        assert all(values[figure]["median"] > 0 for values in systems.values())
        assert "covey" in found["rows"][row]["ratios"]["limit"]
    assert all(values["lost"]["max"] == 0 for values in found["rows"]["events"]["systems"].values())
    assert "bare" in found["rows"]["round_trip"]["systems"]
    assert found["rows"]["taps"]["exact"]
    assert 0 <= found["rows"]["idle"]["share"] < 1
    assert {goal["against"] for goal in found["goals"]} >= {"limit"}
    found = run("bus.py", *SMALL, "--systems", "covey-2", "--only", "round_trip")
    assert found["rows"]["round_trip"]["systems"]["covey-2"]["p50"]["median"] > 0


@pytest.mark.cluster
def test_peers_are_measured_or_it_is_said_why_not(run: Bench) -> None:
    found = run("bus.py", *SMALL, "--only", "events", "--systems", "nats,redis,mosquitto")
    measured = found["rows"]["events"]["systems"]
    assert len(measured) + len(found["not_measured"]) == 3
    assert all("is not installed" in why for why in found["not_measured"].values()), found["not_measured"]


@pytest.mark.cluster
def test_a_small_soak_adds_up(run: Bench) -> None:
    found = run("soak.py", "--count", "30000", "--size", "16384", "--json")
    assert not found["problems"]
    assert sum(found["calls"].values()) == found["calls"]["answered"] == 9_000
    assert sum(found["published"].values()) == 12_000
    assert sum(found["readers"]["slow"]["missed"].values()) > 0, "it was stopped too shortly to lose anything"


@pytest.mark.cluster
def test_bench_registry_measures_covey_and_the_disk_and_etcd_if_it_is_there(run: Bench) -> None:
    found = run("registry.py", "--rounds", "1", "--seconds", "0.1", "--servers", "1", "--json")
    assert all("is not installed" in why for why in found["not_measured"].values()), found["not_measured"]
    for row, figure in (("put", "p99"), ("puts", "rate"), ("linear", "rate"), ("stale", "rate")):
        systems = found["rows"][row]["systems"]
        assert set(systems) - {"disk"} == {"covey", "etcd", "etcd-grpc"} - set(found["not_measured"])
        assert all(values[figure]["median"] > 0 for values in systems.values())
        assert systems["covey"]["cpu"]["median"] > 0
    assert found["rows"]["put"]["ratios"]["disk"]["covey"]["median"] > 0
    assert len(found["goals"]) == (0 if "etcd" in found["not_measured"] else 4)


@pytest.mark.cluster
def test_bench_failover_kills_a_primary_and_loses_nothing(run: Bench) -> None:
    found = run("failover.py", "--kills", "1", "--every", "0.2", "--json")
    assert 0 < found["first"]["max"] <= found["every"]["max"]
    assert found["acknowledged"] > 0
    assert found["lost"] == {"exact": [], **{f"copy of node {number}": [] for number in (1, 2, 3)}}


@pytest.mark.cluster
def test_bench_size_finds_all_keys_again(run: Bench) -> None:
    found = run("size.py", "--servers", "1", "--keys", "100", "--rounds", "1", "--json")
    assert found["there"] == 100
    assert found["start"]["median"] > 0
    assert found["memory"]["most"] > 1
    assert found["disk"]["last"] > 100 * 256


@pytest.mark.cluster
def test_bench_liveness_kills_a_node_and_all_others_know(run: Bench) -> None:
    found = run(
        "liveness.py",
        "--nodes",
        "2",
        "--simulated",
        "30",
        "--kills",
        "1",
        "--seconds",
        "1",
        "--serf-port",
        "0",
        "--json",
    )
    (covey,) = found["covey"]
    assert 0 < covey["first"]["min"] <= covey["all"]["max"] and covey["messages"]["max"] > 0
    assert "not wanted" in found["not_measured"]["serf"]
    assert found["simulated"][0]["10 % killed"]["removed"] == 3


@pytest.mark.cluster
def test_bench_boot_takes_the_time_of_a_start(run: Bench, forked: None) -> None:
    found = run("boot.py", "--nodes", "2", "--rounds", "1", "--isolation", "inline", "-o", "json")
    assert 0 < found["seconds"]["answers"]["min"] <= found["seconds"]["online"]["median"]
    assert len(found["rounds"]) == 1


@pytest.mark.cluster
def test_bench_dcm_moves_a_node_and_tells_what_it_costs(run: Bench, forked: None) -> None:
    found = run("dcm.py", "--isolation", "inline", "--moves", "1", "--idle", "0.2", "--starts", "1", "--json")
    assert list(found["move"]["steps"]) == ["m1", "m2", "m3", "m4", "m5", "m6"]
    assert found["move"]["ms"]["median"] > 0
    assert found["memory"]["server"][""] > 1
    assert found["idle"]["client"][""]["share"] > 0 and found["start"]["median"] > 0
    assert set(found["met"]) == {"move", "memory", "client", "server", "start"}


@pytest.mark.cluster
def test_a_crash_at_a_step_of_each_protocol_leaves_all_or_nothing(run: Bench) -> None:
    """The whole list is `make crash-points`; the steps of a move are those of test_cluster_move.py."""
    found = run("dcm_crashes.py", "--only", "d9,d12,j5,r3,u3,c3", "--json")
    ends = {point["step"]: point["end"] for point in found["points"]}
    nothing, at_the_next = "nothing of it", "at the next start"
    assert (ends.pop("d12"), ends.pop("j5"), ends.pop("r3")) == (
        nothing,
        f"online {at_the_next}",
        f"completed {at_the_next}",
    )
    assert ends == dict.fromkeys(("d9", "u3", "c3"), "all of it")


def test_bench_networks_orders_lists_and_computes_a_change(run: Bench) -> None:
    found = run("networks.py", "--addresses", "200", "--networks", "10")
    assert (found["addresses"], found["networks"]) == (200, 10)
    assert 0 < found["list_ms"]["median"] <= found["list_ms"]["p99"] and found["change_ms"] > 0
