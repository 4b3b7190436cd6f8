"""The envelope, tables in a pipe and on a terminal, streams, and text that would drive a terminal."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import pytest
import yaml
from covey.cli.options import Settings
from covey.cli.output import Envelope, Fields, Stream, Table, aligned, cell, plain, print_blocks, print_result
from covey.cli.quantities import human


def test_the_envelope(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "node_ls"] = []
    found = json.loads(covey("node", "ls", "-o", "json").stdout)
    assert list(found) == ["schema", "generated_at", "cluster", "node", "data", "warnings"]
    assert found["schema"] == "covey/node.ls/1"
    assert datetime.fromisoformat(found["generated_at"]).tzinfo is not None
    assert found["cluster"] == {"name": "lab", "id": "cluster-1"}
    assert found["node"] == {"number": 1, "name": "n1", "id": "id-1"}
    assert found["warnings"] == []


def test_yaml_is_the_same_object(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "node_ls"] = [{"number": 1, "name": "no"}]
    found = yaml.safe_load(covey("node", "ls", "-o", "yaml").stdout)
    assert found["schema"] == "covey/node.ls/1"
    assert found["data"] == [{"number": 1, "name": "no"}]


def test_offline_commands_have_no_cluster(covey) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(covey("version", "-o", "json").stdout)
    assert (found["schema"], found["cluster"], found["node"]) == ("covey/version/1", None, None)
    assert found["data"]["covey"]


def test_tables_in_a_pipe_are_aligned() -> None:
    table = Table(("name", "size"), [("a", 1), ("longer", None), ("b", 2.5)])
    assert aligned(table) == ["NAME    SIZE", "a       1", "longer  -", "b       2.5"]


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_blocks([Table(("name",), [], "no nodes"), Fields([("a", True), ("long", [1, 2])]), "end"])
    assert capsys.readouterr().out == "no nodes\na     yes\nlong  1, 2\nend\n"


def test_a_terminal_gets_rich_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_blocks([Table(("state", "name"), [("online", "[bold]n1[/bold]")])])
    out = capsys.readouterr().out
    assert "STATE" in out
    assert "[bold]n1[/bold]" in out  # what looks like markup is only text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        (False, "no"),
        ([], "-"),
        ({"a": 1, "b": None}, "a=1, b=-"),
        (b"text", "text"),
        (b"\xff\x00", "ff 00"),
        (1234567.891, "1.23457e+06"),
        ("bell\x07 \x1b[2Jgone", "bell\\x07 \\x1b[2Jgone"),
    ],
)
def test_cells(value: Any, shown: str) -> None:
    assert cell(value) == shown


def test_json_can_say_everything() -> None:
    value = {"b": b"\xff", "nan": float("nan"), 3: {2, 1}, "t": (1, 2)}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {"b": "ff", "nan": None, "3": [1, 2], "t": [1, 2]}


def test_warnings_reach_both(capsys: pytest.CaptureFixture[str]) -> None:
    envelope = Envelope("x.y", warnings=["old"])
    print_result(envelope, 1, ["one"], Settings())
    assert capsys.readouterr() == ("one\n", "warning: old\n")
    print_result(envelope, 1, ["one"], Settings(output="json"))
    assert json.loads(capsys.readouterr().out)["warnings"] == ["old"]


@pytest.mark.parametrize(
    ("output", "terminal", "expected"),
    [
        (None, False, '{"a": 1}\n'),
        (None, True, "text\n"),
        ("json", True, '{"a": 1}\n'),
        ("table", False, "text\n"),
        ("yaml", False, "---\na: 1\n"),
    ],
)
def test_streams(
    output: str | None, terminal: bool, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    Stream(Settings(output=output)).line({"a": 1}, "text")
    assert capsys.readouterr().out == expected


def test_what_is_far_too_wide_for_the_terminal_is_printed_row_by_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    columns = [f"attribute{number}" for number in range(9)]
    print_blocks([Table(columns, [tuple(range(9)), tuple(range(9, 18))])])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "attribute0  0"
    assert lines[9:11] == ["", "attribute0  9"]


def test_a_narrow_terminal_leaves_out_what_is_wanted_least(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    row = ("x", "a" * 12, "b" * 12, "c" * 12)
    print_blocks([Table(("key", "One", "Two", "Three"), [row], literal=True, fit=(2, 1, 3), more="--columns shows it")])
    out, error = capsys.readouterr()
    assert all(name in out for name in ("key", "One", "Two", "bbb", "aaa"))
    assert "Three" not in out
    assert error == "not shown, for want of width: Three (--columns shows it)\n"


def test_a_pipe_gets_every_column() -> None:
    assert aligned(Table(("key", "One"), [("x", "a" * 200)], literal=True, fit=(1,)))[0] == "key  One"


def test_the_last_column_is_cut_rather_than_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    print_blocks([Table(("key", "value"), [("k" * 8, "v" * 50)], cut=True)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1] == "k" * 8 + "  " + "v" * 29 + "…"


@pytest.mark.parametrize(
    ("value", "unit", "kind", "shown"),
    [
        (0, "By", "uint64", "0 B"),
        (1500, "By", "uint64", "1500 B"),
        (65536, "By", "uint64", "64 KiB"),
        (1023 * 1024 + 512, "By", "uint64", "1024 KiB"),
        (270553174016, "By", "uint64", "252 GiB"),
        (2**64 - 1, "By", "uint64", "16 EiB"),
        (10_000_000_000, "bit/s", "uint64", "10 Gbit/s"),
        (0.25, None, "duration", "0.25s"),
        (7021.28, None, "duration", "1h57m"),
        (3600, None, "duration", "1h"),
        (90061, None, "duration", "1d1h"),
        (41, "Cel", "float64", 41),
        (None, "By", "uint64", None),
        (True, None, "bool", True),
    ],
)
def test_amounts_for_people(value: Any, unit: str | None, kind: str, shown: Any) -> None:
    assert human(value, unit, kind) == shown
