"""Stories as texts: what is done, a line of dashes, and everything that follows from it.

A file names its stage in the first line (`stage: liveness` is the class `Stage` of `tests/support/liveness_stage.py`);
each test begins on an empty one. A line that is neither a command nor an answer is a comment when it starts with `#`.
Run pytest with `--rewrite` after a wanted change of behaviour: the files then hold what is really answered, and the
difference is the review.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


class Stage(Protocol):
    """Carries out commands, one line each, and returns what is to be seen."""

    def do(self, command: str) -> list[str]: ...


def played(text: str) -> Iterator[str]:
    """Yield the lines of a story as they really come out."""
    first, *lines = text.splitlines()
    name = first.removeprefix("stage:").strip()
    assert first.startswith("stage:"), "the first line names the stage, like 'stage: liveness'"
    stage: Stage = import_module(f"{name}_stage").Stage()
    yield first
    commands: list[str] = []
    answering = False
    for line in lines:
        if not line.strip():
            answering = False
            yield line
        elif answering:
            continue  # the answer that was expected; the real one was yielded already
        elif line.startswith("#"):
            yield line
        elif set(line.strip()) == {"-"}:
            yield line
            for command in commands:
                yield from stage.do(command)
            commands, answering = [], True
        else:
            commands.append(line.strip())
            yield line
    assert not commands, f"{commands} is never carried out: a line of dashes is missing"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_told(path: Path, request: pytest.FixtureRequest) -> None:
    told = path.read_text()
    real = "\n".join(played(told)) + "\n"
    if request.config.getoption("--rewrite"):
        path.write_text(real)
    else:
        assert real == told, f"{path.name}: see the difference; --rewrite makes it the new truth"


def test_there_are_stories() -> None:
    assert STORIES


def test_an_answer_that_is_not_the_expected_one_is_seen(tmp_path: Path) -> None:
    text = STORIES[0].read_text()
    command = next(i for i, line in enumerate(text.splitlines()) if line.strip() == "----")
    lines = text.splitlines()
    lines.insert(command + 1, "something else")
    assert "something else" not in list(played("\n".join(lines)))
