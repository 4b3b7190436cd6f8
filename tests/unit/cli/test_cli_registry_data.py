"""`covey registry txn|export|import|backup`: what is read from files and written to them, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from covey.cli import registry_data, registry_rescue
from covey.cli.registry_files import dump, read_export
from covey.components.registry import backup, entries, records
from covey.components.registry.keys import pack_value
from covey.components.registry.recovery import encode_snapshot
from covey.components.registry.store import Store
from covey.errors import Busy, NoQuorum, NoService, NotFound, NotPrimary
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

TEXT = st.text(alphabet=st.characters(blacklist_categories=("Cs",)))
ODD = [
    *(
        "no",
        "on",
        "1:30",
        "2020-01-01",
        "012",
        "0o14",
        "0x1F",
        "1e5",
        ".5",
        "+.inf",
        ".nan",
        "~",
        "",
        "null",
        "=",
        "<<",
    ),
    *("---", "- a", "a: b", "${env:HOME}", "$${env:X}", "a\nb", "a\n", "\na", " a\nb", "a\n\n\nb", "a \nb", "a\r\nb"),
    *(
        "1_000",
        "0b1",
        "!x",
        "%a",
        "a #b",
        "\x85",
        "\ufeff",
        "\u2028",
        "\x7f",
        "\0",
        "\t",
        "👍",
        "true",
        "-",
        "&a",
        "*a",
    ),
]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.text(alphabet="0123456789.eE+-_:oxnulNaNtruef~= #'\"\n\t|>&*!%@`{}[],?\\")
    | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.sampled_from(ODD), inner, max_size=4),
    max_leaves=12,
)


def back(tmp_path: Path, keys: dict[str, Any]) -> Any:
    path = tmp_path / "export.yaml"
    path.write_text(dump("/app/", {"revision": 1}, keys))
    return read_export(str(path))


@hypothesis_settings(max_examples=60, deadline=None)
@given(value=VALUES)
def test_every_value_survives_the_way_through_a_file(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = {"/app/a": value, "/app/b": {"in": [value, value]}}
    assert json.dumps(back(tmp_path_factory.getbasetemp(), keys)) == json.dumps(keys)


@pytest.mark.parametrize("value", [*ODD, 2**64 - 1, -(2**63), 0.1, 1e300, 5e-324, -0.0, 1.0, 1, True, None])
def test_odd_values_survive(value: Any, tmp_path: Path) -> None:
    assert json.dumps(back(tmp_path, {"/app/a": value})) == json.dumps({"/app/a": value})


def test_keys_of_any_length_and_alphabet_survive(tmp_path: Path) -> None:
    keys = {f"/app/{name}": 1 for name in ("x" * 500, "ü/☃", "a: b", "#", "'", "{}", "1", "~")}
    assert back(tmp_path, keys) == keys


def test_a_deep_value_and_many_keys_survive(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = {"a": [deep]} if _ % 2 else [deep]
    keys = {"/app/deep": json.loads(json.dumps(deep)[:]) if _depth(deep) <= 64 else 1}
    keys |= {f"/app/{number:05}": "x" * number for number in range(600)}
    assert back(tmp_path, keys) == keys


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()))
    return 1 + max(map(_depth, value)) if isinstance(value, list) else 0


# --- txn -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("then:\n- {op: put, key: /app/a}\n", "2:3", "config.missing"),
        ("then:\n- {op: delete, key: /app/a, value: 1}\n", "2:36", "config.bad_value"),
        ("then:\n- {op: put, key: app/a, value: 1}\n", "2:18", "registry.bad_key"),
        ("then:\n- {op: put, key: /nodes/1, value: 1}\n", "2:18", "registry.reserved_key"),
        ("then:\n- {op: set, key: /app/a, value: 1}\n", "2:8", "config."),
        ("then:\n- {op: put, key: /app/a, value: .nan}\n", "2:33", "bus.bad_arguments"),
        ("then:\n- {op: put, key: /app/a, value: 1}\n- {op: delete, key: /app/a}\n", "3:21", "config.duplicate_key"),
        ("compare:\n- {key: /app/a, mod_revision: -1}\n", "2:31", "config."),
        ("compare:\n- {key: /app/a}\n", "2:3", "config.missing"),
        ("than: []\n", "1:1", "config.unknown_key"),
        ("then: [\n", "2:1", "config.syntax"),
    ],
)
def test_txn_says_where_its_file_is_wrong(text: str, where: str, what: str, covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "change.yaml"
    file.write_text(text)
    answer = covey("registry", "txn", str(file))
    assert answer.exit_code == 10
    assert f"change.yaml:{where}: error[{what}" in answer.stderr
    assert bus.calls == []


def test_txn_takes_values_as_they_are_written(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "txn"] = {"revision": 5, "succeeded": True}
    text = "then: [{op: put, key: /app/a, value: '${env:HOME}'}, {op: put, key: /app/b, value: [no, 012, 1e2]}]"
    assert covey("registry", "txn", "-", input=text).exit_code == 0
    given = [one["value"] for one in bus.calls[-1][2]["then"]]
    assert json.dumps(given) == json.dumps(["${env:HOME}", ["no", 12, 100.0]])


def test_txn_of_no_file(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    answer = covey("registry", "txn", str(tmp_path / "none"), "-o", "json")
    assert answer.exit_code == 10
    assert json.loads(answer.stdout)["error"]["code"] == "config.invalid"
    assert bus.calls == []


# --- export and import -----------------------------------------------------------------------------------------------


class Registry:
    """Answers `ls`, `watch` and `txn` like a registry, and changes between two pages as it is told to."""

    def __init__(self, bus: Any, values: dict[str, Any]) -> None:
        self.values, self.revision = dict(values), 10
        self.events: list[dict[str, Any]] = []
        self.meanwhile: list[tuple[str, Any]] = []  # one change after each page; None deletes
        self.transactions: list[list[dict[str, Any]]] = []
        self.fail_after: int | None = None
        bus.answers["registry", "ls"] = self.ls
        bus.answers["registry", "watch"] = self.watch
        bus.answers["registry", "txn"] = self.txn

    def put(self, key: str, value: Any) -> None:
        self.revision += 1
        self.events.append({"type": "put", "key": key, "value": value, "revision": self.revision})
        self.values[key] = value

    def delete(self, key: str) -> None:
        self.revision += 1
        self.events.append({"type": "delete", "key": key, "value": None, "revision": self.revision})
        del self.values[key]

    def ls(self, prefix: str, after: str, limit: int) -> Any:
        rows = [key for key in sorted(self.values) if key.startswith(prefix) and key > after]
        items = [{"key": key, "value": self.values[key], "mod_revision": 1} for key in rows[:3]]
        answer = {"items": items, "revision": self.revision, "more": len(rows) > 3}
        if self.meanwhile:
            key, value = self.meanwhile.pop(0)
            self.delete(key) if value is None else self.put(key, value)
        return answer

    def watch(self, prefix: str, from_revision: int) -> Any:
        found = [each for each in self.events if each["revision"] >= from_revision and each["key"].startswith(prefix)][
            :2
        ]
        to = found[-1]["revision"] if len(found) == 2 else self.revision
        return {"from": from_revision, "to": to, "events": found}

    def txn(self, then: list[dict[str, Any]]) -> Any:
        if self.fail_after is not None and len(self.transactions) >= self.fail_after:
            return NoQuorum("the primary is gone")
        self.transactions.append(then)
        for one in then:
            self.put(one["key"], one["value"])
        return {"revision": self.revision, "succeeded": True}


def test_an_export_is_the_state_at_one_revision(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    registry = Registry(bus, {f"/app/{n}": n for n in range(9)})
    registry.meanwhile = [("/app/0", "late"), ("/app/1", None), ("/app/00", "new"), ("/app/8", "seen")]
    answer = covey("registry", "export", str(tmp_path / "app.yaml"))
    assert answer.exit_code == 0, answer.stderr
    found = read_export(str(tmp_path / "app.yaml"))
    # three pages: the changes after the first and the second are in it, the one after the last is not
    want = {f"/app/{n}": n for n in range(9)} | {"/app/0": "late"}
    del want["/app/1"]
    assert found == want
    assert "revision: 12" in (tmp_path / "app.yaml").read_text()
    assert list(found) == sorted(found)


def test_export_to_standard_output_and_as_json(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    Registry(bus, {"/app/a": "hello", "/app/b": [1, None]})
    text = covey("registry", "export").stdout
    (tmp_path / "x").write_text(text)
    assert read_export(str(tmp_path / "x")) == {"/app/a": "hello", "/app/b": [1, None]}
    assert "/app/a: hello\n" in text
    data = json.loads(covey("registry", "export", "-o", "json").stdout)["data"]
    assert data["keys"] == {"/app/a": "hello", "/app/b": [1, None]}
    told = json.loads(covey("registry", "export", str(tmp_path / "y"), "-o", "json").stdout)["data"]
    assert told["keys"] == 2 and (tmp_path / "y").exists()


def test_export_replaces_no_file(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "x").write_text("precious")
    assert covey("registry", "export", str(tmp_path / "x")).exit_code == 5
    assert (tmp_path / "x").read_text() == "precious"
    assert bus.calls == []


def test_import_writes_what_differs_in_one_transaction(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    registry = Registry(bus, {"/app/a": 1, "/app/b": 1, "/app/c": True, "/app/other": "stays"})
    file = tmp_path / "x.yaml"
    file.write_text(dump("/app/", {}, {"/app/a": 1, "/app/b": 2, "/app/c": 1, "/app/d": None}))
    dry = json.loads(covey("registry", "import", str(file), "--dry-run", "-o", "json").stdout)["data"]
    assert (dry["created"], dry["changed"], dry["unchanged"]) == (["/app/d"], ["/app/b", "/app/c"], 1)
    assert registry.transactions == []
    assert "/app/d" in covey("registry", "import", str(file), "--dry-run").stdout
    answer = covey("registry", "import", str(file))
    assert answer.exit_code == 0, answer.stderr
    assert "1 created, 2 changed, 1 as they were, revision" in answer.stdout
    assert [[one["key"] for one in then] for then in registry.transactions] == [["/app/b", "/app/c", "/app/d"]]
    assert registry.values["/app/other"] == "stays"
    again = json.loads(covey("registry", "import", str(file), "-o", "json").stdout)["data"]
    assert (again["unchanged"], again["transactions"], again["revision"]) == (4, 0, None)


def test_a_large_import_goes_in_bounded_parts_and_can_go_on(covey, bus, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(registry_data, "TRANSACTION_BYTES", 2000)
    registry = Registry(bus, {})
    values = {f"/app/{n}": "x" * 900 for n in range(5)}
    file = tmp_path / "x.yaml"
    file.write_text(dump("/app/", {}, values))
    registry.fail_after = 1
    answer = covey("registry", "import", str(file))
    assert answer.exit_code == 6
    assert "2 of 5 changes were written" in answer.stderr
    registry.fail_after = None
    assert covey("registry", "import", str(file)).exit_code == 0
    assert registry.values == values
    assert [len(then) for then in registry.transactions] == [2, 2, 1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("covey: 1\nkeys: {/app/a: 1, /nodes/1: {}}\n", "x.yaml:2:19: error[registry.reserved_key]"),
        ("covey: 1\nkeys: {/app/a/: 1}\n", "x.yaml:2:8: error[registry.bad_key]"),
        ("covey: 1\nkeys:\n  /app/a: 99999999999999999999999\n", "x.yaml:3:11: error[bus.bad_arguments]"),
        ("covey: 1\nkeys:\n  /app/a: 1\n  /app/a: 2\n", "x.yaml:4:3: error[config.duplicate_key]"),
        ("covey: 2\nkeys: {}\n", "x.yaml:1:8: error"),
        ("keys: {}\n", "error[config.missing]"),
        ("a: b\n", "error[config.unknown_key]"),
        ("", "error[config.empty]"),
    ],
)
def test_import_refuses_a_bad_file_whole(text: str, what: str, covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "x.yaml"
    file.write_text(text)
    answer = covey("registry", "import", str(file))
    assert answer.exit_code == 10
    assert what in answer.stderr
    assert bus.calls == []


# --- backup ----------------------------------------------------------------------------------------------------------


def record() -> bytes:
    store = Store()
    then = (("/app/a", pack_value("/app/a", "x" * 1000)), ("/cluster/definition", pack_value("/", {"name": "lab"})))
    store.apply(entries.Entry(1, 1, 0, entries.Founded("c-1", 0, then)))
    return encode_snapshot(store, records.START)


def handing_out(bus: Any, data: bytes, part: int = 100) -> None:
    def answer(token: str = "", part: int = 0, size: int = part) -> Any:
        if not token:
            return {"node": 3, "token": "t", "size": len(data), "parts": -(-len(data) // size)}
        return data[part * size : (part + 1) * size]

    bus.answers["registry", "backup"] = answer


def test_backup_writes_a_file_that_is_checked(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = record()
    handing_out(bus, data)
    file = tmp_path / "night.backup"
    told = json.loads(covey("registry", "backup", str(file), "-o", "json").stdout)["data"]
    assert (told["cluster"], told["revision"], told["keys"]) == ({"name": "lab", "id": "c-1"}, 1, 2)
    assert told["bytes"] == file.stat().st_size
    assert {options["node"] for options in bus.options[1:]} == {3}  # the parts come from where it is held
    assert backup.read(file).store.get("/app/a") is not None
    calls = len(bus.calls)
    checked = covey("registry", "backup", "--check", str(file))
    assert (checked.exit_code, len(bus.calls)) == (0, calls)
    assert "lab (c-1)" in checked.stdout
    assert covey("registry", "backup", str(file)).exit_code == 5
    assert len(bus.calls) == calls
    file.write_bytes(file.read_bytes()[:-1])
    assert covey("registry", "backup", "--check", str(file)).exit_code == 10


def test_a_backup_is_asked_for_where_the_primary_is(covey, bus, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    handing_out(bus, record())
    give = bus.answers["registry", "backup"]
    moved = [NotPrimary("node 1 does not lead", primary=2), NotPrimary("nobody leads", primary=0), NoService("no one")]
    moved += [NotPrimary("node 1 does not lead", primary=3)]
    bus.answers["registry", "backup"] = lambda **given: moved.pop(0) if moved else give(**given)
    assert covey("registry", "backup", str(tmp_path / "b")).exit_code == 0
    assert [options["node"] for options in bus.options[:5]] == [None, 2, None, None, 3]
    monkeypatch.setattr(registry_rescue, "ELECTION", 0.0)
    bus.answers["registry", "backup"] = NotPrimary("nobody leads", primary=0)
    assert covey("registry", "backup", str(tmp_path / "c")).exit_code == 6


def begun(size: int, then: Any) -> Any:
    return lambda **given: then if given else {"node": 3, "token": "t", "size": size, "parts": 1}


def test_a_backup_that_cannot_be_whole_is_not_there(covey, bus, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(registry_rescue, "ELECTION", 0.0)
    file = tmp_path / "night.backup"
    for answers, code in (
        ({"backup": NoQuorum("no primary answers")}, 6),
        ({"backup": Busy("another backup is being taken")}, 5),
        (
            {
                "backup": lambda **given: (
                    NotFound("held no more") if given else {"node": 3, "token": "t", "size": 9, "parts": 2}
                )
            },
            4,
        ),
        ({"backup": begun(7, b"garbage")}, 10),
    ):
        handing_out(bus, record())
        bus.answers.update({("registry", verb): answer for verb, answer in answers.items()})
        answer = covey("registry", "backup", str(file))
        assert answer.exit_code == code, answer.stderr
        assert list(tmp_path.iterdir()) == []
