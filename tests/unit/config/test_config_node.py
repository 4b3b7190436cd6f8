"""The node's own YAML: good files, and what is particular to it. The wrong files are in `bad/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from covey import errors
from covey.config import check_node, load_node, name_problem
from covey.config.node import Identity, NodeConfig, NodeSection, Security

CONTROLLERS = {"host", "filesystem", "adapter"}
SOURCES = {"machine-id", "dmi", "generated", "file", "command", "value", "card"}
SHORT = "node: {name: n1, adapters: [127.1.0.1/16]}\nsecurity: {mode: open}\n"
LONG = """\
# yaml-language-server: $schema=covey-node.schema.json
node:
  name: n1
  state_dir: ./n1
  identity: machine-id                   # machine-id | dmi | generated | {file: PATH} | {value: TEXT}
  adapters: [127.1.0.1/16, 127.2.0.1/16] # or: auto
  port: 7400                             # peers; the join port is port + 1
security:
  mode: open                             # curve | open (loopback adapters only)
  key: {file: n1.key}
  roles: {admin: [root], operator: []}
isolation: process                       # process | inline
liveness: {interval: 1s}
controllers:
  filesystem: {poll: 30s}
  host: {enabled: false}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text)
    return path


def config(folder: Path, text: str, **env: str) -> NodeConfig:
    path = write(folder, text)
    assert check_node(path, controllers=CONTROLLERS, identity_sources=SOURCES, env=env) == []
    return load_node(path, controllers=CONTROLLERS, identity_sources=SOURCES, env=env)


def codes(folder: Path, text: str) -> list[str]:
    return [found.code for found in check_node(write(folder, text), identity_sources=SOURCES, env={})]


def test_the_whole_file(tmp_path: Path) -> None:
    found = config(tmp_path, LONG)
    assert found.node.name == "n1"
    assert found.node.state_dir == tmp_path / "n1"
    assert found.node.identity == Identity(source="machine-id")
    assert found.node.adapters == ("127.1.0.1/16", "127.2.0.1/16")
    assert found.node.port == 7400
    assert found.security.mode == "open"
    assert found.security.key is not None
    assert found.security.key.file == tmp_path / "n1.key"
    assert found.security.roles.admin == ("root",)
    assert found.isolation == "process"
    assert found.liveness.interval == 1.0
    assert found.controllers["filesystem"].poll == 30.0
    assert found.controllers["filesystem"].enabled
    assert not found.controllers["host"].enabled


def test_defaults(tmp_path: Path) -> None:
    found = config(tmp_path, SHORT)
    assert found.node.state_dir == Path("/var/lib/covey")
    assert found.node.identity == Identity(source="machine-id")
    assert found.node.port == 7400
    assert found.security.key is None
    assert found.security.roles.admin == found.security.roles.operator == ()
    assert found.isolation == "process"
    assert found.liveness.interval == 1.0
    assert found.controllers == {}


def test_nothing_changes_after_reading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        config(tmp_path, SHORT).node.port = 1


def test_settings_can_be_made_in_python() -> None:
    node = NodeSection(
        name="n1", state_dir=Path("/s"), identity=Identity(source="value", value="x"), adapters=("::1/128",)
    )
    found = NodeConfig(node=node, security=Security(mode="open"))
    assert found.node.identity.value == "x"
    assert found.liveness.interval == 1.0


@pytest.mark.parametrize(
    ("written", "source", "value"),
    [
        ("dmi", "dmi", None),
        ("generated", "generated", None),
        ("card", "card", None),
        ("{card: {slot: 2}}", "card", {"slot": 2}),
        ("{value: node-17}", "value", "node-17"),
        ("{command: [/bin/id, -u]}", "command", ("/bin/id", "-u")),
        ("{file: /etc/id}", "file", "/etc/id"),
        ("{machine-id: ~}", "machine-id", None),
    ],
)
def test_identity_sources(tmp_path: Path, written: str, source: str, value: object) -> None:
    text = SHORT.replace("name: n1", f"name: n1, identity: {written}")
    assert config(tmp_path, text).node.identity == Identity(source=source, value=value)


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    text = SHORT.replace("name: n1", "name: n1, state_dir: ../s, identity: {file: id}")
    write(tmp_path / "etc", text)
    monkeypatch.chdir(tmp_path)
    found = load_node("etc/node.yaml")
    assert found.node.state_dir == tmp_path / "s"
    assert found.node.identity.value == str(tmp_path / "etc" / "id")


def test_values_from_the_environment(tmp_path: Path) -> None:
    text = LONG.replace("7400 ", "${env:PORT:-7400} ").replace("1s}", "'${env:INTERVAL}'}")
    found = config(tmp_path, text, PORT="7500", INTERVAL="250ms")
    assert (found.node.port, found.liveness.interval) == (7500, 0.25)


def test_addresses_get_their_usual_spelling(tmp_path: Path) -> None:
    text = SHORT.replace("[127.1.0.1/16]", '["0:0:0:0:0:0:0:1/128", 127.0.0.1/08]')
    assert config(tmp_path, text).node.adapters == ("::1/128", "127.0.0.1/8")


@pytest.mark.parametrize("written", ["127.1.0.1/32", "127.1.0.0/31", "127.1.0.0/32", '"::1/128"'])
def test_good_adapters(tmp_path: Path, written: str) -> None:
    assert codes(tmp_path, SHORT.replace("127.1.0.1/16", written)) == []


@pytest.mark.parametrize(
    "written",
    [
        "127.1.0.1/33",
        "127.1.0.1/0",
        "127.1.0.1/",
        "127.1.0.1/x",
        "127.1.0.255/24",
        "0.0.0.0/8",
        "224.0.0.1/8",
        "''",
        '"::ffff:127.0.0.1/128"',
        '"::/64"',
        "127.1/16",
        "localhost/8",
        "127.1.0.1/16/16",
    ],
)
def test_bad_adapters(tmp_path: Path, written: str) -> None:
    assert codes(tmp_path, SHORT.replace("127.1.0.1/16", written)) == ["config.bad_address"]


def test_the_longest_socket_must_fit(tmp_path: Path) -> None:
    room = 107 - len(os.fsencode("/run/events.sock")) - 1
    for length, good in ((room, True), (room + 1, False), (room + 30, False)):
        text = SHORT.replace("name: n1", f"name: n1, state_dir: /{'x' * length}")
        found = check_node(write(tmp_path, text), env={})
        assert [finding.code for finding in found] == ([] if good else ["config.path_too_long"])
        if found:
            over = length - room
            assert f"is {over} bytes too long" in found[0].message


def test_bytes_count_not_characters(tmp_path: Path) -> None:
    text = SHORT.replace("name: n1", f"name: n1, state_dir: /{'é' * 60}")
    assert codes(tmp_path, text) == ["config.path_too_long"]


def test_what_is_not_installed_and_switched_off_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT + "controllers:\n  gpu: {enabled: false}\n  gpus: {}\n")
    found = check_node(path, controllers=CONTROLLERS, env={})
    assert [(finding.code, finding.severity, finding.line) for finding in found] == [
        ("config.unknown_controller", "warning", 4),
        ("config.unknown_controller", "error", 5),
    ]
    path.write_text(SHORT + "controllers:\n  gpu: {enabled: false}\n")
    assert not load_node(path, controllers=CONTROLLERS, env={}).controllers["gpu"].enabled


def test_without_the_installed_names_any_name_passes(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT.replace("name: n1", "name: n1, identity: tpm") + "controllers: {gpu: {}}\n")
    assert check_node(path, env={}) == []


BEYOND = ("auto", "[10.0.0.1/8]", "[127.0.0.1/8, 10.0.0.1/8]", '["fe80::1/64"]', '["fe80::1%eth0/64"]')


@pytest.mark.parametrize("adapters", BEYOND)
def test_an_address_beyond_loopback_needs_a_key(tmp_path: Path, adapters: str) -> None:
    text = SHORT.replace("[127.1.0.1/16]", adapters)
    for security in ("mode: open", "mode: open, key: {file: n1.key}", "mode: curve", "roles: {}"):
        with pytest.raises(errors.InvalidFile):
            load_node(write(tmp_path, text.replace("mode: open", security)), env={})
    found = config(tmp_path, text.replace("mode: open", "key: {file: n1.key}"))
    assert found.security.mode == "curve"
    assert found.security.key is not None
    assert found.security.key.file == tmp_path / "n1.key"


def test_settings_made_in_python_need_the_key_too() -> None:
    with pytest.raises(ValueError, match="has no 'key'"):
        Security(mode="curve")


def checked(path: Path, asked: list[Path], problem: errors.CoveyError | None) -> list[tuple[str, int, int, str, str]]:
    def check_key(file: Path) -> errors.CoveyError | None:
        asked.append(file)
        return problem

    found = check_node(path, env={}, check_key=check_key)
    if problem is not None and found:
        with pytest.raises(errors.InvalidFile, match=problem.code):
            load_node(path, env={}, check_key=check_key)
    return [(one.code, one.line, one.column, one.message, one.hint) for one in found]


def test_the_key_file_is_looked_at_where_the_file_says(tmp_path: Path) -> None:
    text = SHORT.replace("mode: open", "key: {file: keys/../n1.key}")
    asked: list[Path] = []
    assert checked(write(tmp_path, text), asked, None) == []
    assert asked == [tmp_path / "n1.key"]
    problem = errors.KeyMode("n1.key has mode 0644", "chmod 600 n1.key")
    assert checked(write(tmp_path, text), asked, problem) == [
        ("security.key_mode", 2, 24, "n1.key has mode 0644", "chmod 600 n1.key")
    ]


def test_a_key_file_that_is_not_used_is_not_looked_at(tmp_path: Path) -> None:
    asked: list[Path] = []
    text = SHORT.replace("mode: open", "mode: open, key: {file: n1.key}")
    assert checked(write(tmp_path, text), asked, errors.KeyMissing("it is not there")) == []
    assert asked == []


def test_a_role_for_nobody_is_a_warning_with_a_suggestion(tmp_path: Path) -> None:
    text = SHORT.replace("mode: open", "mode: open, roles: {admin: [root, rooot], operator: [no-such-thing-here]}")
    found = check_node(write(tmp_path, text), env={})
    assert [(one.code, one.severity, one.column) for one in found] == [
        ("config.unknown_user", "warning", 46),
        ("config.unknown_user", "warning", 65),
    ]
    assert "did you mean 'root'?" in found[0].hint
    assert "local user or group" in found[1].hint
    assert load_node(tmp_path / "node.yaml", env={}).security.roles.admin == ("root", "rooot")


@pytest.mark.parametrize("name", ["n1", "a", "_", "N-1.b_2", "1a", "1-1", "x" * 63])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", "1", "007", "-a", ".", "..", ".a", "a b", "a/b", "ä", "a\n", "x" * 64, "٣"])
def test_bad_names(name: str) -> None:
    assert name_problem(name) is not None


@pytest.mark.parametrize("name", ["7", "front office", "-a", "x y/z", "9" * 70])
def test_a_suggested_name_is_a_good_one(name: str) -> None:
    problem = name_problem(name)
    assert problem is not None
    suggested = problem[1].splitlines()[0].removeprefix("write ")
    assert name_problem(suggested) is None
