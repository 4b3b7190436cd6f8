"""The controller `ocf`: an agent of this test's own, and those of Debian's resource-agents where they are installed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.controllers.contract import Failed, Resource, Retry
from covey.controllers.ocf import Ocf
from covey.controllers.ocf.metadata import class_name, read_metadata, typed
from covey.controllers.options import make
from covey.errors import PluginError
from covey.testing import check_controller

METADATA = """<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="Tiny" version="1.0">
<version>1.0</version>
<longdesc lang="en">Keeps a file.
It is for tests.</longdesc>
<shortdesc lang="en">A file that is there</shortdesc>
<parameters>
<parameter name="state" required="1"><shortdesc lang="en">The file</shortdesc><content type="string"/></parameter>
<parameter name="depth"><content type="integer" default="3"/></parameter>
<parameter name="fast-mode"><content type="boolean" default="no"/></parameter>
<parameter name="passwd"><content type="string"/></parameter>
<parameter name="State"><content type="time" default="20s"/></parameter>
</parameters>
<actions>
<action name="start" timeout="2s"/><action name="stop" timeout="90"/>
<action name="monitor" timeout="500ms" interval="1min"/><action name="monitor" depth="10" timeout="60s"/>
<action name="meta-data" timeout="5"/>
</actions>
</resource-agent>
"""

AGENT = f"""#!/bin/sh
# Its file holds the exit code of its monitor.
case $1 in
meta-data) cat <<'END'
{METADATA}END
;;
start)
    if [ "$OCF_RESKEY_depth" = 9 ]; then echo "Jan 1 ERROR: x" >&2; echo "ocf-exit-reason:too deep" >&2; exit 1; fi
    [ "$OCF_RESKEY_depth" = 8 ] && read forever < "$OCF_ROOT/pipe"
    echo 0 > "$OCF_RESKEY_state" ;;
stop) rm -f "$OCF_RESKEY_state" ;;
monitor)
    said="$OCF_RESOURCE_INSTANCE $OCF_RESOURCE_PROVIDER $OCF_RESKEY_CRM_meta_interval"
    echo "$said $COVEY_KEY_Name" > "$OCF_ROOT/asked"
    [ -e "$OCF_RESKEY_state" ] || exit 7
    exit "$(cat "$OCF_RESKEY_state")" ;;
*) exit 3 ;;
esac
"""

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """`options(depth=5)` are those of one resource `tiny` with such parameters."""
    agent = tmp_path / "resource.d" / "test-1" / "Tiny"
    agent.parent.mkdir(parents=True)
    agent.write_text(AGENT)
    agent.chmod(0o755)

    def made(**parameters: Any) -> dict[str, Any]:
        one = {"agent": "ocf:test-1:Tiny", "parameters": {"state": str(tmp_path / "state"), **parameters}}
        return {"root": str(tmp_path), "agents": {"tiny": one}}

    return made


TINY = Resource("OcfTest1Tiny", {"Name": "tiny"}, "x")


def ready(options: dict[str, Any]) -> Any:
    controller: Any = make(Ocf, options)
    controller.describe()
    return controller


def test_metadata_becomes_a_class() -> None:
    assert class_name("test-1", "my.tiny_one") == "OcfTest1MyTinyOne"
    agent = read_metadata("test", "Tiny", METADATA)
    found = agent.described()
    assert found["summary"] == "A file that is there"
    assert list(found["attributes"]) == [
        *("Name", "State", "ExitCode", "Reason"),
        *("state", "depth", "fast_mode", "passwd", "State_"),
    ]
    assert found["attributes"]["state"] == {
        "type": "string",
        "kind": "persistent",
        "required": True,
        "sensitive": False,
        "summary": "The file",
    }
    assert [one["type"] for one in found["attributes"].values()][4:] == ["string", "int64", "bool", "string", "string"]
    assert found["attributes"]["passwd"]["sensitive"]
    assert {name: one["deadline"] for name, one in found["actions"].items()} == {
        "Start": "2s",
        "Stop": "90s",
        "Monitor": "1s",
    }
    assert found["poll"] == {"every": "60s"}
    values = {name: one.default for name, one in agent.parameters.items()}
    assert values == {"state": None, "depth": 3, "fast-mode": False, "passwd": None, "State": "20s"}
    assert [typed("x", "int64"), typed("maybe", "bool"), typed(5, "string"), typed(None, "string")] == [
        "x",
        "maybe",
        "5",
        None,
    ]


BOMB = '<!DOCTYPE resource-agent [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><resource-agent>&b;</resource-agent>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "declares the entity 'a', which is refused"),
        ('<!DOCTYPE r [<!ENTITY a SYSTEM "/etc/passwd">]><r>&a;</r>', "declares the entity 'a'"),
        ("<resource-agent>", "is no XML"),
        ("", "is no XML"),
        ("<agent/>", "is a <agent>, not a <resource-agent>"),
        ("<resource-agent><actions/></resource-agent>", "names no action monitor"),
    ],
)
def test_metadata_that_cannot_be_used(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_metadata("test", "Tiny", text)


def test_an_agent_is_started_watched_and_stopped(options: Options, tmp_path: Path) -> None:
    (one,) = check_controller(Ocf, options(depth="5", passwd="secret"))
    assert one["key"] == {"Name": "tiny"}
    assert one["attributes"] == {
        "state": str(tmp_path / "state"),
        "depth": 5,
        "fast_mode": False,
        "passwd": "<redacted>",
        "State_": "20s",
        "State": "stopped",
        "ExitCode": 7,
        "Reason": None,
    }
    controller = ready(options())
    assert (tmp_path / "asked").read_text() == "tiny test-1 0 tiny\n"
    for action, code, state in (
        ("Start", 0, "running"),
        ("Start", 0, "running"),
        ("Stop", 7, "stopped"),
        ("Stop", 7, "stopped"),
    ):
        assert controller.run(TINY, action, {}) == {}
        assert controller.run(TINY, "Monitor", {}) == {"State": state, "ExitCode": code}
    for code, state in ((8, "promoted"), (9, "failed"), (1, "failed")):
        (tmp_path / "state").write_text(str(code))
        assert controller.read(TINY)["State"] == state
    assert controller.read(TINY)["Reason"] == "exit code 1"


def test_an_agent_that_fails_or_hangs(options: Options, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"^Start of tiny: exit code 1: too deep$"):
        ready(options(depth=9)).run(TINY, "Start", {})
    os.mkfifo(tmp_path / "pipe")
    controller = ready(options(depth=8))
    failed: list[Exception] = []

    def start() -> None:
        try:
            controller.run(TINY, "Start", {})
        except Exception as error:
            failed.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    began = time.monotonic()
    while True:
        try:
            pipe = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)  # when the agent reads from it
            break
        except OSError:
            assert time.monotonic() - began < 30 and starting.is_alive(), failed
    with pytest.raises(Retry, match="an action of tiny is under way"):
        controller.read(TINY)
    starting.join()
    os.close(pipe)
    assert "Tiny did not end within 1.8 s; it was killed" in str(failed[0])
    assert controller.read(TINY)["State"] == "stopped"


def test_wrong_agents_and_parameters_are_told_all_at_once(options: Options, tmp_path: Path) -> None:
    agents = {
        "a": {"agent": "ocf:test-1:Tiny", "parameters": {"deph": "x"}},
        "b": {"agent": "ocf:test-1:Tinny"},
    }
    with pytest.raises(PluginError) as caught:
        ready({"root": str(tmp_path), "agents": agents})
    for words in (
        "a: ocf:test-1:Tiny has no parameter 'deph' (did you mean 'depth'?)",
        "a: ocf:test-1:Tiny needs the parameter 'state'",
        f"ocf:test-1:Tinny: there is no {tmp_path}/resource.d/test-1/Tinny (did you mean ocf:test-1:Tiny?)",
    ):
        assert words in caught.value.message
    with pytest.raises(PluginError, match="write ocf:PROVIDER:TYPE"):
        make(Ocf, {"agents": {"a": {"agent": "ocf:../x"}}})
    assert make(Ocf).describe() == {}


HEARTBEAT = Path("/usr/lib/ocf/resource.d/heartbeat")


@pytest.mark.skipif(not HEARTBEAT.is_dir(), reason="the package resource-agents is not installed")
def test_agents_of_the_system_run_unchanged(tmp_path: Path) -> None:
    link = tmp_path / "link"
    agents = {
        "dummy": {"agent": "ocf:heartbeat:Dummy", "parameters": {"state": str(tmp_path / "dummy.state")}},
        "link": {"agent": "ocf:heartbeat:symlink", "parameters": {"link": str(link), "target": "/etc/hostname"}},
    }
    found = {one["key"]["Name"]: one for one in check_controller(Ocf, {"agents": agents})}
    assert {name: one["class"] for name, one in found.items()} == {
        "dummy": "OcfHeartbeatDummy",
        "link": "OcfHeartbeatSymlink",
    }
    controller = ready({"agents": agents})
    for name, one in found.items():
        resource = Resource(one["class"], {"Name": name}, "x")
        assert (one["attributes"]["State"], one["attributes"]["ExitCode"]) == ("stopped", 7)
        assert controller.run(resource, "Validate", {}) == {}
        assert controller.run(resource, "Start", {}) == {}
        assert controller.read(resource)["State"] == "running"
        assert link.is_symlink() or name == "dummy"
        assert controller.run(resource, "Stop", {}) == {}
        assert controller.run(resource, "Monitor", {}) == {"State": "stopped", "ExitCode": 7}
