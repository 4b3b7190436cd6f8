"""The file that `config check` refuses, `node start` refuses alike; the file that it passes starts."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from covey.config import check_node
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Nodes = Callable[..., Cluster]

FIVE = """\
node:
  nmae: n1
  adapters: [127.5.0.1/16, 192.168.1.7/24]
  port: 70000
security:
  mode: open
liveness:
  interval: 5 minutes
controllers:
  host: {enabled: off}
"""
FINDINGS = [
    (2, 3, "config.unknown_key"),
    (3, 28, "config.not_loopback"),
    (4, 9, "config.out_of_range"),
    (8, 13, "config.bad_duration"),
    (10, 19, "config.wrong_type"),
]


def test_five_mistakes_are_five_findings_for_check_and_for_start(nodes: Nodes) -> None:
    node = nodes(1)[1]
    node.file.write_text(FIVE)
    checked = node.covey("-o", "json", "config", "check", str(node.file))
    assert checked.code == 10
    assert [(one["line"], one["column"], one["code"]) for one in checked.data] == FINDINGS
    assert all(one["file"] == str(node.file) and one["message"] for one in checked.data)
    places = [f"{node.file}:{line}:{column}: error[{code}]" for line, column, code in FINDINGS]
    for words in (["config", "check"], ["node", "start"]):
        refused = node.covey(*words, str(node.file))
        assert refused.code == 10
        said = refused.out + refused.err
        assert [place for place in places if place not in said] == []
        assert len(re.findall(r"error\[", said)) >= len(places)
        for line in FIVE.splitlines():
            if any(FIVE.splitlines()[number - 1] == line for number, _, _ in FINDINGS):
                assert line in said
    assert not node.state.exists()
    assert node.covey("-o", "json", "node", "start", str(node.file)).error["code"] == "config.invalid"


NODE = "node:\n  name: {name}\n  state_dir: {state}\n  adapters: [{first}, {second}]\n  port: {port}\n"
OPEN = "security: {{mode: open}}\nisolation: inline\n"

GOOD = {
    "least": "# a file\n---\n" + NODE + OPEN + "...\n",
    "flow": "{{node: {{name: n1, state_dir: '{state}', adapters: ['{first}'], port: {port}}},\n"
    " security: {{mode: open}}}}",
    "every-setting": NODE.replace("  port", "  identity: {{value: abc}}\n  port")
    + "security:\n  mode: open\n  key: {{file: none.key}}\n  roles: {{admin: [root, nobody-here], operator: [adm]}}\n"
    + "isolation: process\nliveness: {{interval: 500ms}}\n"
    + "controllers:\n  host: {{poll: 1m, discover: 1h}}\n"
    + "  filesystem: {{enabled: false}}\n  exec: {{enabled: false}}\n",
    "from-elsewhere": NODE.replace("{port}", "${{env:CV_PORT}}").replace("{name}", "${{env:CV_NO_NAME:-nn}}")
    + "  identity: {{file: /proc/sys/kernel/random/boot_id}}\n"
    + OPEN,
    "odd": NODE.replace("{state}", "./a b/../ünï/x")
    .replace("{name}", "no")
    .replace("{second}", "127.9.9.9/8, 127.255.255.254/32")
    + "  identity: {{command: [echo, some id]}}\n"
    + OPEN,
}


@pytest.mark.parametrize("name", GOOD)
def test_what_the_check_passes_starts(nodes: Nodes, name: str) -> None:
    node = nodes(1)[1]
    first, second = node.adapters
    text = GOOD[name].format(name=node.name, state=node.state, first=first, second=second, port=node.port)
    node.file.write_text(text)
    node.environment["CV_PORT"] = str(node.port)
    node.state = state_folder(node)
    starts(node)


def test_a_folder_with_the_longest_path_that_passes_starts(nodes: Nodes) -> None:
    """The check must know the longest of the sockets that a node binds below its folder."""
    node = nodes(1)[1]
    text = node.file.read_text()

    def passes(length: int) -> bool:
        node.state = Path(str(node.state.with_name("n")).ljust(length, "n"))
        node.file.write_text(text.replace(f"./{node.name}", str(node.state)))
        return not check_node(node.file)

    longest = max(length for length in range(60, 108) if passes(length))
    assert 90 < longest < 107
    assert passes(longest)
    node.environment["COVEY_STATE"] = str(node.state)
    starts(node)


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_an_adapter_may_be_ipv6(nodes: Nodes) -> None:
    node = nodes(1)[1]
    node.file.write_text(node.file.read_text().replace(node.adapters[1], '"::1/128"'))
    starts(node)


def state_folder(node: Node) -> Path:
    """Where the file says that the state is, as the command line shows it."""
    shown = node.covey("-o", "json", "config", "show", str(node.file))
    assert shown.code == 0, shown
    return Path(shown.data["node"]["state_dir"])


def starts(node: Node) -> None:
    checked = node.covey("config", "check", str(node.file))
    assert checked.code == 0, checked.out
    node.start()
    node.wait_up()
    assert node.call("dcm", "cluster_define", name="lab")["node"]["number"] == 1
    node.wait_online()
    assert os.access(node.state / "run" / "bus.sock", os.F_OK)
    assert node.stop() == 0
