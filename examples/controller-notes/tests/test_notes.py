"""The controller keeps its description, and does what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from covey import Failed, Resource
from covey.testing import check_controller
from covey_notes import Notes


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COVEY_NOTES", str(tmp_path))
    (tmp_path / "milk.txt").write_text("buy milk\n")
    return tmp_path


def test_it_keeps_its_description() -> None:
    (found,) = check_controller(Notes)
    assert (found["key"], found["attributes"]["Size"]) == ({"Name": "milk"}, 9)


def test_a_note_is_written_changed_and_deleted(folder: Path) -> None:
    note = Resource("Note", {"Name": "tea"}, "1-x")
    notes = Notes()
    notes.define(note, {"Text": "drink Tea", "Colour": "green"})
    notes.append(note, Line="more tea", Times=2)
    assert notes.find(note, Word="tea", IgnoreCase=False) == {"Lines": [2, 3]}
    assert notes.find(note, Word="TEA", IgnoreCase=True) == {"Lines": [1, 2, 3]}
    notes.set(note, {"Text": "no tea"})
    assert (folder / "tea.txt").read_text() == "no tea"
    notes.undefine(note)
    assert not (folder / "tea.txt").exists()


def test_a_name_is_no_path() -> None:
    with pytest.raises(Failed, match="no name for a note"):
        Notes().define(Resource("Note", {"Name": "../tea"}, "1-x"), {"Text": ""})
