"""Every wrong file of `bad/` has exactly the findings that stand in it, each at its place.

Below a line with a mistake stands a comment with a caret under the place, the code, and words that must be in the
finding (`#1` instead of a caret: column 1, where the `#` itself stands).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from covey import errors
from covey.config import Finding, check_node, load_node, render_all
from covey.config.codes import FINDINGS

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
CONTROLLERS = {"host", "filesystem", "adapter", "exec"}
SOURCES = {"machine-id", "dmi", "generated", "file", "command", "value"}
_MARK = re.compile(r"#(?: *\^|([12])) ([a-z]+\.[a-z_]+) ?(.*)")


def expected(path: Path) -> list[tuple[int, int, str, str]]:
    found, above = [], 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark = _MARK.fullmatch(line)
        if mark:
            column = int(mark[1]) if mark[1] else line.index("^") + 1
            found.append((above, column, mark[2], mark[3]))
        else:
            above = number
    return sorted(found)


def check(path: Path) -> list[Finding]:
    return check_node(path, controllers=CONTROLLERS, identity_sources=SOURCES, env={})


def test_the_corpus_is_there() -> None:
    assert len(BAD) >= 60
    assert all(expected(path) for path in BAD)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_findings_stand_at_their_places(path: Path) -> None:
    findings = check(path)
    wanted = expected(path)
    assert [(found.line, found.column, found.code) for found in findings] == [mark[:3] for mark in wanted], render_all(
        findings
    )
    for found, (*_, words) in zip(findings, wanted, strict=True):
        assert words in f"{found.message}\n{found.hint}"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_findings_are_said_in_words_of_the_file(path: Path) -> None:
    for found in check(path):
        assert found.code in FINDINGS or found.code in errors.by_code()
        said = f"{found.message} {found.hint}"
        for alien in ("str", "int", "bool", "float", "dict", "NoneType", "tuple", "Input should", "pydantic", "None"):
            assert not re.search(rf"\b{alien}\b", said), said
        assert found.source == path.read_text().splitlines()[found.line - 1]
        assert 1 <= found.column <= len(found.source) + 1


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_what_the_check_refuses_does_not_load(path: Path) -> None:
    with pytest.raises(errors.InvalidFile) as caught:
        load_node(path, controllers=CONTROLLERS, identity_sources=SOURCES, env={})
    assert caught.value.details["findings"] == [found.as_dict() for found in check(path)]
    assert str(path) in caught.value.message


def test_most_findings_say_what_to_write() -> None:
    findings = [found for path in BAD for found in check(path)]
    assert sum(bool(found.hint) for found in findings) / len(findings) >= 0.9


def test_five_different_mistakes_are_five_findings() -> None:
    findings = check(Path(__file__).parent / "bad" / "five_mistakes.yaml")
    assert len(findings) == 5
    assert len({found.code for found in findings}) == 5


def test_every_explained_code_is_in_use() -> None:
    import covey.config

    folder = Path(covey.config.__file__).parent
    text = "".join(path.read_text() for path in sorted(folder.glob("*.py")) if path.name != "codes.py")
    for code, explanation in FINDINGS.items():
        if code.startswith("config."):
            assert f'"{code.partition(".")[2]}"' in text, code
        assert explanation.endswith(".")
