"""A controller whose resources can be defined, changed, removed and told to do something: text files in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from covey import Controller, Failed, Found, Resource, action


class Notes(Controller):
    """Notes of this node."""

    description = "notes.yaml"

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("COVEY_NOTES", "~/.covey-notes")).expanduser()

    def discover(self) -> Iterator[Found]:
        """Every file is a note. Nothing is said of its colour, so that stays as the registry has it."""
        for path in sorted(self.folder.glob("*.txt")):
            yield Found("Note", key={"Name": path.stem}, Text=path.read_text())

    def read(self, resource: Resource) -> dict[str, Any]:
        """How long it is, and when it was written."""
        found = self._path(resource).stat()
        return {"Size": found.st_size, "Changed": datetime.fromtimestamp(found.st_mtime, UTC)}

    def define(self, resource: Resource, values: dict[str, Any]) -> None:
        """Write a new file; covey has made sure that there is a text, and that no note of that name is known."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path(resource).open("x") as file:
            file.write(values["Text"])

    def set(self, resource: Resource, values: dict[str, Any]) -> None:
        """Write the text anew, if it is to change."""
        if "Text" in values:
            self._path(resource).write_text(values["Text"])

    def undefine(self, resource: Resource) -> None:
        """Delete the file."""
        self._path(resource).unlink(missing_ok=True)

    @action("Note", "Append")
    def append(self, resource: Resource, *, Line: str, Times: int) -> None:
        """Write a line, or several, behind the last one."""
        path = self._path(resource)
        behind = path.read_text()
        with path.open("a") as file:
            file.write("\n" * (behind != "" and not behind.endswith("\n")) + f"{Line}\n" * Times)

    @action("Note", "Find")
    def find(self, resource: Resource, *, Word: str, IgnoreCase: bool) -> dict[str, Any]:
        """Look for a word."""
        word, text = Word, self._path(resource).read_text()
        if IgnoreCase:
            word, text = word.lower(), text.lower()
        return {"Lines": [number for number, line in enumerate(text.splitlines(), 1) if word in line]}

    def _path(self, resource: Resource) -> Path:
        name = resource.key["Name"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
            raise Failed(f"{name!r} is no name for a note", "write letters, digits, - and _")
        return self.folder / f"{name}.txt"
