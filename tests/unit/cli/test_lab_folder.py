"""What a lab is on the disk: its files, their limits, and the port."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
from covey.bus.security import load_keys
from covey.cli.lab import commands, folder, ports
from covey.config import check_node, load_node
from covey.errors import InvalidFile, LabFailed, NoLab, Refused, UsageError


@pytest.mark.parametrize("mode", ["curve", "open"])
@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_the_yaml_of_every_node_is_valid_and_says_what_the_lab_counts_on(
    tmp_path: Path, isolation: str, mode: str
) -> None:
    lab = folder.create(tmp_path, 3, 20400, isolation, mode)
    for node in lab:
        assert check_node(node.file) == []
        config = load_node(node.file)
        assert config.security.mode == mode
        assert node.key.exists() == (mode == "curve")
        if config.security.key is not None:
            assert Path(config.security.key.file) == node.key
        assert config.node.name == node.name
        assert Path(config.node.state_dir) == node.state
        assert config.node.port == node.port == 20400
        assert [str(adapter).partition("/")[0] for adapter in config.node.adapters] == node.addresses
        assert config.isolation == isolation
    assert folder.load(tmp_path) == lab


def test_a_nodes_yaml_is_written_once(tmp_path: Path) -> None:
    lab = folder.create(tmp_path, 2, 20400, "process")
    (tmp_path / "n1.yaml").write_text("mine")
    grown = folder.grown(lab, 3, "process")
    assert (tmp_path / "n1.yaml").read_text() == "mine"
    assert (tmp_path / "n3.yaml").exists()
    assert folder.load(tmp_path) == grown
    assert grown.port == lab.port
    with pytest.raises(Refused, match="2 are asked for"):
        folder.grown(grown, 2, "process")


def test_what_a_lab_that_is_there_is_asked_for_is_told_first(covey, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder.create(tmp_path, 3, 20400, "process", servers=3)
    fewer = covey("lab", "up", "--nodes", "2", "--dir", str(tmp_path))
    assert (fewer.exit_code, "has 3 nodes, and 2 are asked for" in fewer.stderr) == (5, True)
    none = covey("lab", "up", "--nodes", "0", "--dir", str(tmp_path))
    assert (none.exit_code, "not 0" in none.stderr) == (2, True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/lab"):
        with pytest.raises(Refused, match="cannot be made") as told:
            folder.create(tmp_path / name, 1, 20400, "process")
        assert "--dir" in told.value.hint


def test_what_is_printed_to_be_typed_can_be_typed(covey, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    lab = folder.create(tmp_path / "my lab", 2, 20400, "process")
    lines = [shlex.split(line) for line in commands.next_steps(lab).removeprefix("try: ").splitlines()]
    assert lines[0] == ["covey", "--state", str(lab.node("1").state), "cluster", "status"]
    assert lines[-1] == ["covey", "lab", "down", "--dir", str(lab.folder)]
    down = covey("lab", "down", "--dir", str(lab.folder)).stdout
    assert shlex.split(down.partition("go with: ")[2]) == ["rm", "-r", str(lab.folder)]
    hint = covey("lab", "kill", "1", "--dir", str(lab.folder)).stderr.partition("`")[2].partition("`")[0]
    assert shlex.split(hint) == ["covey", "lab", "start", "1", "--dir", str(lab.folder)]
    assert str(tmp_path) in covey("lab", "status", "--dir", str(tmp_path)).stderr


def test_a_lab_keeps_its_mode_and_its_keys(tmp_path: Path) -> None:
    lab = folder.create(tmp_path, 2, 20400, "inline", "curve")
    keys = [load_keys(node.key).public for node in lab]
    grown = folder.grown(lab, 3, "inline")
    assert grown.mode == folder.load(tmp_path).mode == "curve"
    found = [load_keys(node.key).public for node in grown]
    assert found[:2] == keys
    assert len(set(found)) == 3
    older = (tmp_path / "lab.yaml").read_text().replace("security: curve\n", "")
    (tmp_path / "lab.yaml").write_text(older)
    assert folder.load(tmp_path).mode == "open"


def test_nodes_by_number_and_name(tmp_path: Path) -> None:
    lab = folder.create(tmp_path, 2, 20400, "process")
    assert lab.node("2") == lab.node("n2")
    for typed in ("3", "n0", "two"):
        with pytest.raises(NoLab, match=typed):
            lab.node(typed)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_what_to_try_names_nodes_there_are(tmp_path: Path, nodes: int) -> None:
    lab = folder.create(tmp_path, nodes, 20400, "process")
    text = commands.next_steps(lab)
    assert f"{tmp_path}/n{nodes} resource ls Host" in text
    assert (f"lab kill {nodes} --dir" in text) == (nodes > 1)
    assert text.count("kill") == (nodes > 1)


def test_no_lab_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(NoLab):
        folder.load(tmp_path)
    for text in ("nodes: [", "nodes: x\nport: 1\ncluster: lab\n", "[]", "nodes: 3"):
        (tmp_path / "lab.yaml").write_text(text)
        with pytest.raises(InvalidFile, match=r"lab\.yaml"):
            folder.load(tmp_path)


def test_limits(tmp_path: Path) -> None:
    folder.check(tmp_path, 1)
    for nodes in (0, 251):
        with pytest.raises(UsageError):
            folder.check(tmp_path, nodes)
    with pytest.raises(UsageError, match="too long"):
        folder.check(tmp_path / ("x" * 100), 3)


def test_a_chosen_port_is_held_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = ports.choose([1, 2, 3])
    monkeypatch.setattr(ports, "_LOWEST", choice.port)
    monkeypatch.setattr(ports, "_HIGHEST", choice.port + 1)
    with pytest.raises(LabFailed, match="no port is free"):
        ports.choose([1])
    choice.release()
    again = ports.choose([1])
    assert again.port == choice.port
    again.release()


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_taken_on_one_address_is_not_chosen(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = ports.choose([1, 2])
    choice.release()
    monkeypatch.setattr(ports, "_LOWEST", choice.port)
    monkeypatch.setattr(ports, "_HIGHEST", choice.port + 1)
    with socket.socket() as taken:
        taken.bind(("127.2.0.2", choice.port + offset))
        with pytest.raises(LabFailed, match=rf"127\.2\.0\.2:{choice.port + offset}"):
            ports.choose([1, 2])


def test_the_lab_says_when_there_is_none(covey, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for words in (["status"], ["down"], ["kill", "1"], ["start", "1"], ["stop", "1"]):
        answer = covey("lab", *words, "--dir", str(tmp_path))
        assert answer.exit_code == 4, words
        assert "error[lab.not_found]" in answer.stderr


@pytest.mark.parametrize(("nodes", "servers"), [("3", "4"), ("2", "3"), ("9", "7"), ("3", "0")])
def test_a_lab_has_no_more_servers_than_nodes_and_at_most_five(nodes: str, servers: str, covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    answer = covey("lab", "up", "--nodes", nodes, "--servers", servers, "--dir", str(tmp_path / "lab"))
    assert answer.exit_code == 2 and "registry servers" in answer.stderr
    assert not (tmp_path / "lab").exists()


def test_the_usual_number_of_servers_is_odd_and_at_most_three() -> None:
    assert [folder.usual_servers(nodes) for nodes in (1, 2, 3, 4, 9)] == [1, 1, 3, 3, 3]


def test_a_lab_keeps_its_servers_and_gets_more(tmp_path: Path) -> None:
    lab = folder.create(tmp_path, 3, 20000, "inline", "open", 1)
    assert folder.load(tmp_path).servers == 1
    assert folder.grown(lab, 3, "inline", 3).servers == folder.load(tmp_path).servers == 3
    with pytest.raises(Refused, match="has 3 registry servers"):
        folder.grown(folder.load(tmp_path), 3, "inline", 1)
