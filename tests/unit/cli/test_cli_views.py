"""What people see of resources, groups, plugins, the bus, liveness and components; `-o json` has the same data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from covey.cli.output import Table
from covey.errors import BadExpression, NotFound, Unreachable

TALLY = {
    "protocol": 7,
    "op": "message",
    "proposer": {"node": 1, "member": "a"},
    "target": None,
    "body": "x",
    "phases": 1,
    "default": "reject",
    "outcome": "rejected",
    "votes": [{"phase": 1, "node": 2, "member": "b", "vote": "reject", "why": "full", "how": "voted"}],
}
ROWS = [
    {
        "class": "Disk",
        "id": "1-aa",
        "key": {"Name": "a"},
        "node": 1,
        "attributes": {"Name": "a", "Size": 5},
        "age_s": 2.4,
    },
    {"class": "Disk", "id": "2-bb", "key": {"Name": "b"}, "node": 2, "attributes": {"Name": "b"}, "age_s": None},
]
CLASS = {
    "name": "Disk",
    "version": 1,
    "nodes": [1],
    "attributes": [{"name": "Name", "type": "string", "key": True}, {"name": "Size", "type": "uint64", "unit": "By"}],
    "actions": [
        {
            "name": "Format",
            "summary": "Empty it.",
            "deadline": 90.0,
            "arguments": [
                {"name": "Blocks", "type": "uint32", "many": True, "unit": "By"},
                {"name": "Fast", "type": "bool", "default": False, "has_default": True},
            ],
        }
    ],
}
VIEW = {"id": [2, 4], "members": [{"number": 1, "boot_id": "b", "state": "online", "name": "n1"}]}
GROUP = {"name": "g", "view": 3, "members": [{"node": 1, "member": "registry"}], "state": None, "phase": "idle"}
PLUGIN = {
    "name": "host",
    "package": "covey",
    "version": "1",
    "state": "failed",
    "classes": [],
    "reason": "import: no such module",
}
GRAPHS = {"text": "functions: …", "dot": "digraph covey {\n}", "functions": {}, "data": {}}
STATUS = {
    "waiting": 0,
    "node": {"number": 1},
    "parties": [{"name": "dcm", "pid": 7, "queue": 3, "services": ["dcm"], "events_dropped": 9}],
    "callers": [2, 3],
    "links": [{"peer": "2", "address": "a:1", "up": True, "waiting": 1, "rtt": 0.5, "last_reason": "", "idle": 3.0}],
    "counters": {"requests": 12, "events_dropped": 9},
    "losses": {"events_dropped": 9},
}


@pytest.fixture
def full(bus: Any) -> Any:
    bus.answers |= {
        ("dcm", "node_ls"): [{"number": 2, "name": "n2", "state": "online"}],
        ("resources", "classes"): {
            "items": [{"class": "Disk", "version": 1, "controller": "disk", "nodes": [1, 2]}],
            "warnings": ["node 3 has another Disk"],
        },
        ("resources", "class"): CLASS,
        ("resources", "ls"): {"items": ROWS, "warnings": []},
        ("resources", "show"): lambda **_: {**ROWS[0], "warnings": []},
        ("resources", "refresh"): [{"name": "disk", "state": "late", "reason": "slow"}],
        ("groups", "ls"): [{"name": "g", "view": 3, "members": 2, "sequence": 9}],
        ("groups", "show"): GROUP,
        ("groups", "transcript"): [TALLY],
        ("groups", "propose"): {"group": "g", "view": 3, "sequence": 10},
        ("groups", "broadcast"): {"group": "g", "view": 3, "sequence": 11},
        ("liveness", "status"): {"view": VIEW, "quorate": True, "frozen": False},
        ("dcm", "plugins"): [PLUGIN],
        ("dcm", "plugin_why"): {**PLUGIN, "story": ["found here", "failed there"]},
        ("dcm", "components"): GRAPHS,
        ("bus", "status"): STATUS,
    }
    return bus


@pytest.mark.parametrize(
    ("words", "shown", "data"),
    [
        ("resource classes", ["Disk   1        disk        1, 2"], [{"class": "Disk"}]),
        (
            "resource class Disk",
            [
                "Size       uint64  -    By",
                "Format  1m30s     Blocks: list of uint32 in By, Fast: bool = no  Empty it.",
            ],
            CLASS,
        ),
        ("resource ls Disk", ["node  Name  Size  age", "1     a     5 B   2s", "2     b     -     -"], ROWS),
        ("resource show Disk a", ["key    Name=a", "Size  5 B"], ROWS[0]),
        ("resource refresh", ["disk        late     slow"], [{"name": "disk"}]),
        ("group ls", ["g     2        3     9"], [{"name": "g"}]),
        ("group show g", ["view   3", "1     registry"], GROUP),
        ("group transcript g", ["7: message x by a@1: rejected", "1      2     b       reject  full"], [TALLY]),
        ("group propose g x --phases 2", ["done, event 10 of g"], {"group": "g"}),
        ("group broadcast g hello", ["done, event 11 of g"], {"sequence": 11}),
        ("group state g", ["-"], {"name": "g", "state": GROUP["state"]}),
        ("liveness status", ["view     2.4, members 1", "1       n1    online  b"], {"view": VIEW}),
        ("plugin ls", ["host  covey    1        failed  -        import: no such module"], [PLUGIN]),
        ("plugin why host", ["reason   import: no such module", "found here", "failed there"], {"state": "failed"}),
        ("components", ["functions: …"], GRAPHS),
        ("components --dot", ["digraph covey {"], GRAPHS),
        (
            "bus status",
            [
                "requests that wait for an answer  0",
                "  number  1",
                "dcm   dcm       7    3      9",
                "nodes that have dialled this one  2, 3",
                "2     a:1      yes  1        0.5  -",
                "  requests  12",
                "  events_dropped  9",
            ],
            STATUS,
        ),
    ],
)
def test_text_and_json(words: str, shown: list[str], data: Any, covey, full) -> None:  # type: ignore[no-untyped-def]
    answer = covey(*words.split())
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    for line in shown:
        assert line in lines, answer.stdout
    found = json.loads(covey(*words.split(), "-o", "json").stdout)
    assert (
        found["schema"]
        == f"covey/{'.'.join(word for word in words.split()[:2] if word.islower() and '-' not in word)}/1"
    )
    assert covers(found["data"], data)


def covers(found: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; more may be."""
    if isinstance(wanted, dict):
        return all(name in found and covers(found[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(covers, found, wanted))
    return bool(found == wanted)


def test_warnings_of_a_list_reach_the_reader(covey, full) -> None:  # type: ignore[no-untyped-def]
    assert "warning: node 3 has another Disk" in covey("resource", "classes").stderr
    assert json.loads(covey("resource", "classes", "-o", "json").stdout)["warnings"] == ["node 3 has another Disk"]


def test_resources_of_one_node(covey, full) -> None:  # type: ignore[no-untyped-def]
    assert covey("resource", "ls", "Disk", "--node", "n2", "--fresh").exit_code == 0
    assert full.calls[-1] == ("resources", "ls", {"cls": "Disk", "of_node": 2, "fresh": True})
    assert covey("resource", "show", "Disk", "a", "--node", "2").exit_code == 0
    assert full.calls[-1][2]["of_node"] == 2


def test_no_resources_of_a_node_that_is_not_there(covey, full) -> None:  # type: ignore[no-untyped-def]
    full.answers["resources", "ls"] = {"items": [], "warnings": []}
    assert "no resources" in covey("resource", "ls", "Disk", "--node", "2").stdout
    answer = covey("resource", "ls", "Disk", "--node", "99")
    assert (answer.exit_code, "no node has the number 99" in answer.stderr) == (4, True)


def test_another_nodes_bus(covey, full) -> None:  # type: ignore[no-untyped-def]
    assert covey("bus", "status", "--node", "n2").exit_code == 0
    assert full.options[-1]["node"] == 2


def test_columns_are_chosen_and_checked(covey, full) -> None:  # type: ignore[no-untyped-def]
    assert covey("resource", "ls", "Disk", "--columns", "Name").stdout.splitlines()[0] == "node  Name  age"
    answer = covey("resource", "ls", "Disk", "--columns", "Nam,Size")
    assert (answer.exit_code, "there are: Size, Name" in answer.stderr) == (2, True)


def test_a_class_that_nobody_describes_is_listed_plainly(covey, full) -> None:  # type: ignore[no-untyped-def]
    full.answers["resources", "class"] = NotFound("no node answers")
    assert "1     a     5     2s" in covey("resource", "ls", "Disk").stdout


def test_a_narrow_terminal_gets_what_is_and_how_it_is_by_turns(covey, full, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shown: list[Table] = []
    monkeypatch.setattr("covey.cli.output.print_blocks", shown.extend)
    names = [("Model", "persistent"), ("Maker", "persistent"), ("Load", "dynamic"), ("Heat", "dynamic")]
    full.answers["resources", "class"] = {"attributes": [{"name": name, "kind": kind} for name, kind in names]}
    attributes = {"Name": "a", **{name: 1 for name, _ in names}}
    full.answers["resources", "ls"] = {"items": [{**ROWS[0], "attributes": attributes}], "warnings": []}
    assert covey("resource", "ls", "Disk").exit_code == 0
    assert [shown[0].columns[index] for index in shown[0].fit] == ["Model", "Load", "Maker", "Heat", "age"]


def test_resource_watch(covey, full) -> None:  # type: ignore[no-untyped-def]
    event = {
        "type": "changed",
        "class": "Disk",
        "id": "1-aa",
        "key": {"Name": "a"},
        "node": 1,
        "attributes": {"Name": "a", "Size": 6, "Used": 2},
        "changed": ["Used"],
    }
    answers = [
        {"token": "t", "to": 4, "missed": 0, "events": []},
        Unreachable("node 1 is restarting"),
        {"token": "u", "to": 9, "missed": 2, "events": [event, event]},
    ]
    full.answers["resources", "watch"] = {"from": 1, "to": 1, "events": []}
    full.answers["resources", "watch_local"] = lambda **_: answers.pop(0)
    answer = covey("resource", "watch", "Disk", "-s", "Used > 1", "--count", "1", "-o", "table")
    assert answer.stdout == "changed  Disk/Name=a@1  Used=2\n"
    assert "node 1 is restarting; trying again" in answer.stderr and "2 changes were missed" in answer.stderr
    asked = [given for _, verb, given in full.calls if verb == "watch_local"]
    assert [(given.get("token"), given.get("since")) for given in asked] == [(None, None), ("t", 4), ("t", 4)]
    assert {given["select"] for given in asked} == {"Used > 1"}
    answers.append({"token": "u", "to": 9, "missed": 0, "events": [event]})
    assert json.loads(covey("resource", "watch", "Disk", "--count", "1").stdout) == event


def test_changes_are_asked_for_as_typed_and_shown(covey, full) -> None:  # type: ignore[no-untyped-def]
    row = {**ROWS[0], "warnings": ["Disk reports 'Heat'"]}
    for verb in ("set", "define", "undefine"):
        full.answers["resources", verb] = lambda **_: {**row}
    answer = covey("resource", "set", "Disk", "a", "Size=5kB", "Label=x=y", "--node", "n2")
    assert (answer.exit_code, "Size  5 B" in answer.stdout) == (0, True)
    assert "warning: Disk reports 'Heat'" in answer.stderr
    values = {"Size": "5kB", "Label": "x=y"}
    asked = {"cls": "Disk", "key": "a", "values": values, "as_text": True, "of_node": 2}
    assert ("resources", "set", asked) in full.calls
    assert covey("resource", "define", "Disk", "Name=a", "-o", "json").exit_code == 0
    assert full.calls[-1][2] == {"cls": "Disk", "values": {"Name": "a"}, "as_text": True, "of_node": None}
    answer = covey("resource", "undefine", "Disk", "a")
    assert (answer.exit_code, full.calls[-1][1]) == (2, "define"), "it asks first, where there is a terminal"
    assert covey("resource", "undefine", "Disk", "a", "--yes").stdout == "Disk Name=a on node 1: removed\n"
    for words in (["Size"], ["=5"], ["Size=5", "Size=6"]):
        assert covey("resource", "set", "Disk", "a", *words).exit_code == 2


def test_an_action_is_waited_for_until_its_own_deadline(covey, full) -> None:  # type: ignore[no-untyped-def]
    full.answers["resources", "class"] = {"actions": [{"name": "Format", "deadline": 3600.0}]}
    answer = {"class": "Disk", "key": {"Name": "a"}, "node": 1, "action": "Format", "result": {"Blocks": 7}}
    full.answers["resources", "run"] = lambda **_: {**answer, "warnings": []}
    text = covey("resource", "run", "Disk", "a", "Format", "Fast=true").stdout
    assert text == "Format of Disk Name=a on node 1: done\nBlocks  7\n"
    assert full.calls[-1][2]["arguments"] == {"Fast": "true"}
    assert full.options[-1]["timeout"] > 3600
    assert covey("resource", "run", "Disk", "a", "Format", "--timeout", "5s").exit_code == 0
    assert full.options[-1]["timeout"] == 5.0


def test_a_selection_is_handed_on_and_its_mistake_is_a_matter_of_usage(covey, full) -> None:  # type: ignore[no-untyped-def]
    assert covey("resource", "ls", "Disk", "-s", "Size > 3").exit_code == 0
    assert full.calls[-1][2]["select"] == "Size > 3"
    full.answers["resources", "watch"] = BadExpression("there is no attribute 'Siz'")
    answer = covey("resource", "watch", "Disk", "-s", "Siz > 3", "-o", "json")
    assert (answer.exit_code, full.calls[-1][2]["select"]) == (2, "Siz > 3")
