"""From an exception or a running frame to the one line of a plugin's own code that an author must look at.

Knows nothing of loading or hooks. A plugin's *home* is where its top-level package lies, found without
importing it. Frames outside the home (ours, the interpreter's, a library's) are not what the author asks
about, so the innermost frame inside it is the place that is named. Odd: covey's own plugins live inside
covey, so their home is only the folder of the module that the entry point names.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType

from ..errors import CoveyError

_LONGEST = 300
_TAIL_LINES = 40


@dataclass(frozen=True)
class Home:
    """Where a plugin's own code lies: shown paths start from `bases`, `own` is what counts as its code."""

    name: str
    bases: tuple[Path, ...] = ()
    own: tuple[Path, ...] = ()

    def place(self, filename: str, line: int) -> str:
        """Return `gpu/controller.py:3` for a line inside the home, "" for any other."""
        if filename.startswith("<"):  # made at run time, or the interpreter's own
            return ""
        path = Path(filename).resolve()
        if not any(path.is_relative_to(root) for root in self.own):
            return ""
        for base in self.bases:
            if path == base:
                return f"{path.name}:{line}"
            if path.is_relative_to(base):
                return f"{self.name}/{path.relative_to(base).as_posix()}:{line}"
        return ""


def home_of(module: str) -> Home:
    """Return the home of the plugin that `module` (dotted name) belongs to. Imports nothing of it."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return Home(top)
    if spec.submodule_search_locations is None:
        bases: tuple[Path, ...] = (Path(spec.origin).resolve(),) if spec.origin else ()
    else:
        bases = tuple(Path(folder).resolve() for folder in spec.submodule_search_locations)
    if top != __name__.partition(".")[0]:
        return Home(top, bases, bases)
    own = tuple(path for base in bases for path in (base.joinpath(*rest), base.joinpath(*rest).with_suffix(".py")))
    return Home(top, bases, own)


def place_of_exception(error: BaseException, home: Home) -> str:
    """Return the innermost line of the plugin's own code that the exception went through, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        inside = home.place(error.filename, error.lineno or 1)
        if inside:
            return inside
    for one in _chain(error):
        places = [home.place(tb.tb_frame.f_code.co_filename, tb.tb_lineno) for tb in _links(one.__traceback__)]
        inside = next((place for place in reversed(places) if place), "")
        if inside:
            return inside
    return ""


def place_of_frame(frame: FrameType | None, home: Home) -> str:
    """Return the line of the plugin's own code that a running frame is at or was called from, or ""."""
    while frame is not None:
        inside = home.place(frame.f_code.co_filename, frame.f_lineno)
        if inside:
            return inside
        frame = frame.f_back
    return ""


def sentence(error: BaseException) -> str:
    """Return what the exception says as one line; its class is left out where the text says enough."""
    kind = type(error).__name__
    try:
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    except Exception:
        text = "(its text cannot be made)"
    if isinstance(error, (ImportError, OSError, CoveyError)) and text:
        return text[:_LONGEST]
    return f"{kind}: {text}"[:_LONGEST] if text else kind


def reason(what: str, error: BaseException, home: Home) -> str:
    """Return `what: sentence (file:line)`, the form in which every failure of a plugin is listed."""
    place = place_of_exception(error, home)
    return f"{what}: {sentence(error)}" + (f" ({place})" if place else "")


def tail(error: BaseException, home: Home) -> str:
    """Return the end of the traceback, from the plugin's first own line on, without the way into it."""
    first = next((tb for tb in _links(error.__traceback__) if _inside(tb, home)), None)
    if first is None:
        lines = traceback.format_exception_only(error)
    else:
        lines = traceback.format_exception(type(error), error, first)
    return "\n".join("".join(lines).rstrip().splitlines()[-_TAIL_LINES:])


def _links(link: TracebackType | None) -> Iterator[TracebackType]:
    while link is not None:
        yield link
        link = link.tb_next


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it was raised from or while handling, newest first; chains may be circles."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _inside(link: TracebackType, home: Home) -> bool:
    return bool(home.place(link.tb_frame.f_code.co_filename, link.tb_lineno))
