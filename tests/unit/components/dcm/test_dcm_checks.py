"""What the doctor finds, and what is found before a define: each finding from the facts that call for it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey.components.dcm.checks import ROOM, Health, Survey, Visit, doctor, preflight, refuse
from covey.components.dcm.definitions import ClusterDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.facts import at_rest, free, skew, without
from covey.components.dcm.layout import Layout
from covey.components.dcm.messages import Here, Prepared, Way
from covey.components.dcm.settings import ASKED, COMMIT_BYTES
from covey.components.dcm.storage import Store
from covey.config.codes import FINDINGS
from covey.errors import Preflight
from define_world import node

HERE = Here("1.0", 2, 100.0)
VISIT = Visit("10.0.0.2:7400", HERE, HERE, 0.0, ("10.0.0.2/24",), ("10.0.0.1/24",))


def codes(visit: Visit, **changes: Any) -> list[tuple[str, str]]:
    found = preflight(msgspec.structs.replace(visit, **changes))
    assert all(one.code in FINDINGS and one.hint for one in found)
    return [(one.code.removeprefix("doctor."), one.severity) for one in found]


def ways(*problems: str) -> tuple[Way, ...]:
    return tuple(Way(0, f"10.0.{number}.1:7400", problem) for number, problem in enumerate(problems))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"newcomer": Here("1.0", 2, 0, ways("", "refused"))}, [("unreachable", "warning")]),
        ({"newcomer": Here("1.0", 2, 0, ways("lost", "refused"))}, [("unreachable", "error")]),
        ({"member": Here("1.0", 2, 0, ways("lost"))}, [("unreachable", "error")]),
        ({"newcomer": Here("0.9", 2)}, [("version", "warning")]),
        ({"newcomer": Here("2.0", 3)}, [("protocol", "error")]),
        ({"newcomer": Here()}, []),
        ({"skew": 1.9}, []),
        ({"skew": -2.0}, [("clock", "warning")]),
        ({"skew": 301.0}, [("clock", "error")]),
        ({"addresses": ("10.0.0.2/16",)}, [("prefix", "warning")]),
        ({"addresses": ("10.0.1.2/24",)}, [("apart", "warning")]),
        ({"addresses": ("127.0.0.1/8",)}, [("loopback", "error")]),
        ({"others": ("127.0.0.1/8",)}, [("loopback", "error")]),
        ({"addresses": ("fd00::2/64", "10.0.0.2/24")}, []),
    ],
)
def test_before_a_define(changes: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert codes(VISIT, **changes) == found


def test_an_error_refuses_and_a_warning_does_not() -> None:
    refuse("a", preflight(msgspec.structs.replace(VISIT, skew=3.0)))
    with pytest.raises(Preflight, match=r"\[doctor.clock\].* 900 s behind"):
        refuse("a", preflight(msgspec.structs.replace(VISIT, skew=-900.0)))


def test_what_a_new_node_says_of_its_ways_fits_the_join_port_and_leaves_out_who_is_away() -> None:
    tried = tuple(Way(0, "[fd00:0000:0000:0000:0000:0000:0000:0001]:65535", "x" * 120) for _ in range(ASKED))
    said = Prepared("t" * 32, "i" * 64, "n" * 63, ("fd00::1/64",) * 4, 7400, "k" * 64, here=Here("1.0", 2, 1.5, tried))
    assert len(msgspec.msgpack.encode(said)) < COMMIT_BYTES
    away = node(3)
    endpoint = away.endpoints()[0]
    assert without(Here(ways=(Way(0, endpoint, "gone"), Way(0, "x:1"))), [away]).ways == (Way(0, "x:1"),)


def test_a_clock_is_off_only_when_it_was_read_outside_of_the_time_it_took() -> None:
    assert skew(10.5, 10.0, 11.0) == skew(0.0, 10.0, 11.0) == 0.0
    assert (skew(9.0, 10.0, 11.0), skew(15.0, 10.0, 11.0)) == (-1.0, 4.0)


# --- the doctor -------------------------------------------------------------------------------------------------


def health(number: int = 1, **changes: Any) -> Health:
    well = Health(number, f"n{number}", HERE, "online", free=ROOM[1], defined=("a:1",), listens=("a:1", "b:1"))
    return msgspec.structs.replace(well, **changes)


WELL = {
    "quorate": True,
    "node_state": "online",
    "registry": {"writable": True, "phase": "writes", "tolerates": 1, "servers": [{"number": 1, "state": "primary"}]},
}


def registry(**changes: Any) -> dict[str, Any]:
    return {**WELL, "registry": {**WELL["registry"], **changes}}  # type: ignore[dict-item]


def found(*nodes: Health, status: dict[str, Any] = WELL, silent: dict[int, str] | None = None) -> list[Any]:
    survey = Survey(1, {1: "n1", 2: "n2", 3: "n3"}, nodes or (health(),), silent or {}, status)
    said = doctor(survey)
    assert all(one.code in FINDINGS and one.hint for one in said)
    return [(one.code.removeprefix("doctor."), one.severity, one.node) for one in said]


def test_a_network_that_leads_nowhere_and_packets_of_two_sizes() -> None:
    def tried(*problems: str) -> Here:
        return Here("1.0", 2, 0, tuple(Way(2, f"10.{n}.0.2:7400", why) for n, why in enumerate(problems, 1)))

    hosts = [f"10.{n}.0.{node}" for n in (1, 2) for node in (1, 2)]
    networks = {host: {"1": "A", "2": "B"}[host.split(".")[1]] for host in hosts}

    def said(here: Here, *mtus: int) -> list[tuple[str, str]]:
        nodes = [health(n, here=here if n == 1 else HERE, mtus={f"10.1.0.{n}": mtu}) for n, mtu in enumerate(mtus, 1)]
        survey = Survey(1, {1: "n1", 2: "n2"}, tuple(nodes), {}, WELL, frozenset(), networks, networks)
        told = [one for one in doctor(survey) if one.code != "doctor.unreachable"]
        assert all(one.code in FINDINGS and one.hint for one in told)
        return [(one.code, one.message) for one in told]

    assert said(tried("", ""), 1500, 1500) == []
    assert said(tried("lost", "lost"), 1500, 1500) == [], "that is more than a network"
    ((code, message),) = said(tried("lost", ""), 1500, 1500)
    assert code == "doctor.network" and "n1 reaches nobody on the network A" in message
    ((code, message),) = said(tried("", ""), 1500, 9000)
    assert code == "doctor.mtu" and "1500 at n1 (10.1.0.1); 9000 at n2 (10.1.0.2)" in message


LOST = Here("1.0", 2, 0, (Way(2, "a:1", "lost"), Way(3, "b:1", "lost"), Way(3, "c:1")))


@pytest.mark.parametrize(
    ("nodes", "options", "wanted"),
    [
        ((), {}, []),
        ((), {"silent": {3: "gone"}}, [("silent", "error", 3)]),
        ((health(here=LOST),), {}, [("unreachable", "error", 1), ("unreachable", "warning", 1)]),
        ((health(here=LOST),), {"silent": {2: "gone", 3: "gone"}}, [("silent", "error", 2), ("silent", "error", 3)]),
        (
            (health(), health(2, here=Here("2.0", 2), skew=9.0)),
            {},
            [("clock", "warning", 2), ("version", "warning", 2)],
        ),
        ((health(), health(2, here=Here("2.0", 9))), {}, [("protocol", "error", 2)]),
        ((health(2, state="failed", reason="why"),), {}, [("failed", "error", 2)]),
        ((health(2, state="failed", identity="identity.clone"),), {}, [("identity", "error", 2)]),
        ((health(2, state="offline", operator=True, plugins=(("x", "y"),)),), {}, [("offline", "warning", 2)]),
        ((health(2, state="checking"),), {}, [("pending", "warning", 2)]),
        ((health(0, state="undefined"),), {}, [("no_cluster", "warning", None)]),
        ((health(2, problem="torn"),), {}, [("damaged_file", "error", 2)]),
        ((health(2, free=ROOM[0] - 1),), {}, [("disk", "error", 2)]),
        ((health(2, free=ROOM[1] - 1),), {}, [("disk", "warning", 2)]),
        ((health(2, crashed={"groups": "why"}),), {}, [("crash", "warning", 2)]),
        ((health(2, plugins=(("gpu", "no library"),)),), {}, [("plugin", "warning", 2)]),
        ((health(2, listens=("b:1",), addresses=("b/8",), port=1),), {}, [("address", "error", 2)]),
        ((), {"status": {**WELL, "quorate": False}}, [("no_quorum", "error", None)]),
        ((), {"status": registry(writable=False)}, [("read_only", "error", None)]),
        ((), {"status": registry(servers=[{"number": 2, "state": "damaged"}])}, [("server", "error", 2)]),
        ((), {"status": registry(servers=[{"number": 2, "state": "offline"}])}, [("server", "warning", 2)]),
        ((), {"status": registry(tolerates=0)}, [("no_spare", "warning", None)]),
        ((), {"status": {**WELL, "quorate": False, "node_state": "offline"}}, []),
    ],
)
def test_what_the_doctor_finds(nodes: tuple[Health, ...], options: dict[str, Any], wanted: list[Any]) -> None:
    assert found(*nodes, **options) == wanted


def test_a_node_in_another_cluster_is_not_missed() -> None:
    survey = Survey(1, {1: "n1", 2: "n2", 3: "n3"}, (health(here=LOST),), {}, WELL, frozenset({2, 3}))
    assert doctor(survey) == []


def test_a_node_at_rest_is_looked_at_and_not_touched(tmp_path: Path) -> None:
    assert [one.code for one in at_rest(tmp_path / "none")] == ["doctor.no_folder"]
    layout = Layout(tmp_path / "n1")
    store = Store(layout)
    store.prepare()
    cluster = ClusterDefinition("lab", "c" * 32)
    store.make_cluster(cluster)
    store.commit_replica(Replica(cluster, node(1), ServerList((1,), 1), NodeTable({1: node(1)})))
    store.commit_cluster(cluster)
    room = ["doctor.disk"] * (free(layout.state_dir) < ROOM[1])
    assert [one.code for one in at_rest(layout.state_dir)] == ["doctor.no_daemon", *room]
    layout.cluster(cluster.id).node_file.write_text("{}")
    before = sorted(layout.state_dir.rglob("*"))
    assert [one.code for one in at_rest(layout.state_dir)] == ["doctor.no_daemon", "doctor.damaged_file", *room]
    assert sorted(layout.state_dir.rglob("*")) == before
    with layout.lock.open("w") as held:
        held.write("4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        hung = at_rest(layout.state_dir)[0]
    assert (hung.code, "4711" in hung.message) == ("doctor.hung", True)
