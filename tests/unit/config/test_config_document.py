"""Any model from any file: errors of pydantic said at their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from covey import errors
from covey.config.document import Problem, load, read, read_bytes, refusal
from covey.config.findings import Finding
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _known_type(name: str) -> str:
    if name not in ("int32", "string"):
        raise PydanticCustomError("description.unknown_type", "unknown type {name}", {"name": name, "hint": "look"})
    return name


class Attribute(Strict):
    type: Annotated[str, AfterValidator(_known_type)]
    key: bool = False


class Timed(Strict):
    kind: Literal["timed"]
    every: int


class Watched(Strict):
    kind: Literal["watched"]
    path: str


class Names(RootModel[list[str]]):
    pass


class Kind(Strict):
    version: int = Field(default=1, ge=1)
    attributes: dict[str, Attribute] = {}
    how: Annotated[Timed | Watched, Field(discriminator="kind")] | None = None
    either: int | list[int] | Attribute = 0
    names: Names = Names([])
    pair: tuple[int, str] = (0, "")

    @model_validator(mode="after")
    def _version_two(self) -> Kind:
        if self.version == 2 and "Old" in self.attributes:
            raise refusal("gone", "'Old' {is} gone", "drop it", at=("attributes", "Old"), at_key=True)
        return self


class File(Strict):
    covey: Literal[1]
    classes: dict[str, Kind] = {}


def findings(text: str, **more: Any) -> list[Finding]:
    found, result = read_bytes(text.encode(), File, file="gpu.yaml", env={}, prefix="description.", **more)
    assert (found is None) == any(finding.severity == "error" for finding in result)
    return result


def one(text: str) -> tuple[str, int, int, str, str]:
    (found,) = findings(text)
    return found.code, found.line, found.column, found.message, found.hint


def test_a_good_file() -> None:
    text = "covey: 1\nclasses:\n  A: {attributes: {x: {type: int32}}, how: {kind: timed, every: 3}, pair: [1, x]}\n"
    found, result = read_bytes(text.encode(), File, file="gpu.yaml", env={})
    assert result == []
    assert found is not None
    assert found.classes["A"].how == Timed(kind="timed", every=3)
    assert found.classes["A"].pair == (1, "x")


def test_an_error_of_an_author_keeps_its_code_and_hint() -> None:
    text = "covey: 1\nclasses:\n  A:\n    attributes:\n      x: {type: Int32}\n"
    assert one(text) == ("description.unknown_type", 5, 17, "unknown type Int32", "look")


def test_an_error_can_be_moved_into_the_value_and_to_a_key() -> None:
    text = "covey: 1\nclasses:\n  A:\n    version: 2\n    attributes:\n      Old: {type: int32}\n"
    assert one(text) == ("description.gone", 6, 7, "'Old' {is} gone", "drop it")


def test_generic_codes_get_the_prefix() -> None:
    assert one("covey: 1\nclases: {}\n")[:3] == ("description.unknown_key", 2, 1)
    assert one("classes: {}\n") == ("description.missing", 1, 1, "the file has no 'covey'", "write covey: …")
    assert one("covey: 1\ncovey: 1\n")[0] == "description.duplicate_key"
    assert one("covey: 2\n")[:4] == ("description.wrong_type", 1, 8, "'covey' must be 1, not 2")


def test_keys_below_any_name_know_what_is_allowed() -> None:
    text = "covey: 1\nclasses:\n  A:\n    attributes:\n      x: {type: string, kye: true}\n"
    assert one(text)[1:] == (5, 25, "unknown key 'kye' in 'x'", "did you mean 'key'?\nallowed: key, type")


def test_a_chosen_branch_of_a_union_is_the_one_that_speaks() -> None:
    head = "covey: 1\nclasses:\n  A:\n    "
    assert one(head + "how: {kind: timed, evry: 3}")[1:] == (
        4,
        24,
        "unknown key 'evry' in 'how'",
        "did you mean 'every'?\nallowed: every, kind, path",
    )
    assert one(head + "how: {kind: timed, every: x}")[1:4] == (4, 31, "'every' must be a whole number, not 'x'")
    assert one(head + "either: {type: nope}")[0] == "description.unknown_type"
    assert one(head + "either: [1, x]")[1:4] == (4, 17, "item 2 of 'either' must be a whole number, not 'x'")


def test_when_no_branch_fits_all_are_said() -> None:
    code, line, column, message, _ = one("covey: 1\nclasses: {A: {either: x}}")
    assert (code, line, column) == ("description.wrong_type", 2, 23)
    assert message == "'either' must be a whole number or a list or a section of KEY: VALUE lines, not 'x'"


def test_root_models_and_tuples() -> None:
    assert one("covey: 1\nclasses: {A: {names: [a, 5]}}")[1:4] == (2, 26, "item 2 of 'names' must be text, not 5")
    assert one("covey: 1\nclasses: {A: {pair: [1]}}")[1:4] == (2, 21, "'pair' has too few items")
    assert one("covey: 1\nclasses: {A: {pair: [1, x, 3]}}")[:3] == ("description.bad_length", 2, 21)


def test_several_missing_keys_at_one_place_are_all_said() -> None:
    class Two(Strict):
        one: int
        two: int

    found, result = read_bytes(b"{}", Two, file="f", env={})
    assert found is None
    assert sorted(finding.message for finding in result) == ["the file has no 'one'", "the file has no 'two'"]


def test_a_misspelt_key_explains_the_missing_one() -> None:
    assert [finding.code for finding in findings("covy: 1")] == ["description.unknown_key"]


def test_a_check_hears_the_file_even_when_the_model_refuses_it() -> None:
    def check(data: Any, context: Mapping[str, Any]) -> Iterator[Problem]:
        yield Problem(("classes", "A"), "description.odd", f"{context['word']} {sorted(data)}", at_key=True)
        yield Problem(("covey",), "late", "not said: this place has a finding")
        yield Problem(("classes", "A", "nowhere"), "far", "at the nearest place", severity="warning")

    result = findings("covey: x\nclasses:\n  A: {version: 1}\n", check=check, context={"word": "saw"})
    assert [(found.code, found.line, found.column, found.severity) for found in result] == [
        ("description.wrong_type", 1, 8, "error"),
        ("description.odd", 3, 3, "error"),
        ("description.far", 3, 6, "warning"),
    ]
    assert result[1].message == "saw ['classes', 'covey']"


def test_a_warning_alone_does_not_refuse_the_file() -> None:
    def check(data: Any, context: Mapping[str, Any]) -> list[Problem]:
        return [Problem(("covey",), "old", "old", severity="warning")]

    assert [found.severity for found in findings("covey: 1", check=check)] == ["warning"]


def test_a_broken_value_is_complained_about_once() -> None:
    def check(data: Any, context: Mapping[str, Any]) -> list[Problem]:
        return [Problem(("classes", "A", "version"), "more", "more")]

    result = findings("covey: 1\nclasses: {A: {version: '${env:NOT}'}}", check=check)
    assert [found.code for found in result] == ["description.unset_variable"]


def test_errors_are_in_the_order_of_the_file() -> None:
    text = "classes:\n  B: {version: 0}\n  A: {version: x}\ncovey: 3\n"
    assert [found.line for found in findings(text)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", "'version' must be a whole number, not a list"),
        ("{a: 1}", "'version' must be a whole number, not a section of KEY: VALUE lines"),
        ("true", "'version' must be a whole number, not true"),
        ("~", "'version' has no value; it must be a whole number"),
        ("0", "'version' must be at least 1, not 0"),
        ("1.0", "'version' must be a whole number, not 1.0"),
    ],
)
def test_what_stands_there_is_said_in_yaml_words(value: str, message: str) -> None:
    assert one(f"covey: 1\nclasses: {{A: {{version: {value}}}}}")[3] == message


def test_the_folder_of_the_file_is_in_the_context(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def check(data: Any, context: Mapping[str, Any]) -> list[Problem]:
        seen.update(context)
        return []

    (tmp_path / "f.yaml").write_text("covey: 1")
    read(tmp_path / "f.yaml", File, check=check, context={"more": 1})
    assert seen == {"folder": tmp_path, "more": 1}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    wanted = {
        tmp_path / "nothing.yaml": "config.no_file",
        tmp_path: "config.unreadable",
        tmp_path / "file" / "x": "config.unreadable",
        tmp_path / "loop": "config.unreadable",
        Path("a\0b"): "config.unreadable",
    }
    for path, code in wanted.items():
        found, result = read(path, File)
        assert found is None
        assert [(finding.code, finding.line, finding.column) for finding in result] == [(code, 1, 1)]


def test_load_raises_with_every_finding(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("covey: 9\nnothing: 1\n")
    with pytest.raises(errors.InvalidFile) as caught:
        load(path, File, prefix="description.")
    assert [found["code"] for found in caught.value.details["findings"]] == [
        "description.wrong_type",
        "description.unknown_key",
    ]
    assert caught.value.message.endswith(f"2 errors in {path}")
    assert caught.value.exit_code == 10


def test_load_returns_the_model(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("covey: ${env:FORMAT}\n")
    assert load(path, File, env={"FORMAT": "1"}).covey == 1
