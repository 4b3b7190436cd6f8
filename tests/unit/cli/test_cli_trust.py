"""Files of a new node, join tokens and forgetting a cluster, as a person meets them on the command line."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from covey.bus.security import load_keys
from covey.cli import init
from covey.components.dcm.token import Token
from covey.config import check_node, load_node

WORD = Token("0123456789abcdef", b"s" * 16, "a" * 64, 1_800_003_600).text()
MADE = {
    "token": WORD,
    "id": "0123456789abcdef",
    "expires": 1_800_003_600,
    "key": "a" * 64,
    "name": "n2",
    "addresses": ["10.0.0.2:7400"],
}


# --- init -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["new/folder", "n2.yaml", "some/where/db.yml"])
def test_what_init_writes_passes_the_check(where: str, tmp_path: Path, covey: Any) -> None:
    answer = covey("node", "init", str(tmp_path / where), "-o", "json")
    assert answer.exit_code == 0, answer.stderr
    made = json.loads(answer.stdout)["data"]
    file, key = Path(made["file"]), Path(made["key_file"])
    assert check_node(file) == []
    config = load_node(file)
    assert (config.security.mode, config.node.port) == ("curve", 7400)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert load_keys(key).public == made["key"]
    assert config.security.key is not None
    assert Path(config.security.key.file) == key
    assert Path(config.node.state_dir).parent == file.parent
    assert f"covey node start {file}" in answer.stderr
    assert covey("config", "check", str(file)).exit_code == 0


def test_init_takes_what_is_said(tmp_path: Path, covey: Any) -> None:
    words = ["--name", "db", "--adapter", "10.1.2.3/24", "--adapter", "fd00::3/64", "--port", "8000"]
    answer = covey("--state", "/srv/a folder", "node", "init", str(tmp_path), *words)
    assert answer.exit_code == 0, answer.stderr
    config = load_node(tmp_path / "node.yaml")
    assert (config.node.name, config.node.port, str(config.node.state_dir)) == ("db", 8000, "/srv/a folder")
    assert [str(each) for each in config.node.adapters] == ["10.1.2.3/24", "fd00::3/64"]


def test_init_for_trying_things_needs_no_key(tmp_path: Path, covey: Any) -> None:
    assert covey("node", "init", str(tmp_path), "--open").exit_code == 0
    assert load_node(tmp_path / "node.yaml").security.mode == "open"
    assert [path.name for path in tmp_path.iterdir()] == ["node.yaml"]


@pytest.mark.parametrize("there", ["node.yaml", "node.key"])
def test_init_overwrites_nothing(there: str, tmp_path: Path, covey: Any) -> None:
    (tmp_path / there).write_text("mine")
    answer = covey("node", "init", str(tmp_path), "-o", "json")
    assert answer.exit_code == 5
    assert there in json.loads(answer.stdout)["error"]["message"]
    assert (tmp_path / there).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_init_follows_no_link_to_a_key(tmp_path: Path, covey: Any) -> None:
    (tmp_path / "node.key").symlink_to(tmp_path / "nowhere")
    assert covey("node", "init", str(tmp_path)).exit_code == 5
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("host", "name"), [("db-1.example.org", "db-1"), ("42", "n42"), ("ä-x", "x"), ("", "n"), ("a" * 80, "a" * 63)]
)
def test_the_machines_name_becomes_a_nodes(host: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert init.own_name() == name


# --- tokens ---------------------------------------------------------------------------------------------------


def test_prepare_prints_the_word_alone(covey: Any, bus: Any) -> None:
    bus.answers["dcm", "node_prepare"] = MADE
    answer = covey("node", "prepare", "--ttl", "10m")
    assert (answer.exit_code, answer.stdout) == (0, WORD + "\n")
    assert "10m" in answer.stderr
    assert "covey node define 10.0.0.2:7400" in answer.stderr
    assert WORD not in answer.stderr
    assert bus.calls == [("dcm", "node_prepare", {"ttl": 600.0})]
    assert json.loads(covey("node", "prepare", "-o", "json").stdout)["data"] == MADE


def test_tokens_are_listed_and_made_void(covey: Any, bus: Any) -> None:
    token = {"id": "0123456789abcdef", "state": "unused", "made": 1_800_000_000.0, "expires": 1_800_003_600.0}
    bus.answers["dcm", "node_tokens"] = {"tokens": [token], "refused": {"refused_token_expired": 2}}
    answer = covey("node", "prepare", "--ls")
    assert answer.exit_code == 0, answer.stderr
    assert "0123456789abcdef" in answer.stdout
    assert "2 refused_token_expired" in answer.stdout
    bus.answers["dcm", "node_tokens_cancel"] = {"cancelled": ["0123456789abcdef"]}
    assert covey("node", "prepare", "--cancel").stdout == "1 made void\n"


@pytest.mark.parametrize(("words", "typed"), [(["--token", WORD], None), (["--token", "-"], f"{WORD}\n")])
def test_define_hands_the_token_on(words: list[str], typed: str | None, covey: Any, bus: Any) -> None:
    bus.answers["dcm", "node_define"] = {"number": 2, "name": "n2"}
    assert covey("node", "define", "10.0.0.2:7400", *words, input=typed).exit_code == 0
    assert bus.calls[0][2]["token"].strip() == WORD


# --- forget ---------------------------------------------------------------------------------------------------


def test_forget_asks(covey: Any, bus: Any) -> None:
    bus.answers["dcm", "node_forget"] = {"name": "lab", "id": "c" * 32, "proved": False}
    assert covey("node", "forget", "lab").exit_code == 2
    assert bus.calls == []
    assert covey("node", "forget", "lab", "--yes").exit_code == 0
    assert bus.calls == [("dcm", "node_forget", {"which": "lab"})]


@pytest.mark.parametrize("code", ["dcm.token_invalid", "dcm.token_needed", "dcm.token_refused", "identity.key_changed"])
def test_each_code_is_explained(code: str, covey: Any) -> None:
    answer = covey("explain", code)
    assert answer.exit_code == 0
    assert len(answer.stdout.split()) > 15
