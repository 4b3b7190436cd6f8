"""What PyYAML's syntax errors say in words that help, and at the place where a person looks.

Knows only the texts of PyYAML's scanner and parser; one it does not know is passed on as it is. PyYAML stops
at the first syntax error, so there is only ever one of these in a file.
"""

from __future__ import annotations

from typing import NamedTuple

from yaml.error import Mark, MarkedYAMLError

from .findings import Place


class SyntaxWords(NamedTuple):
    """A syntax error as a finding says it."""

    code: str
    place: Place
    message: str
    hint: str


# A part of PyYAML's text → message, hint, and whether the place is where the broken thing began.
_TABLE: list[tuple[str, str, str, bool]] = [
    (
        "mapping values are not allowed here",
        "a ':' stands where no key can be",
        "quote a value that holds ': ', or see whether the line above lacks its ':'",
        False,
    ),
    ("could not find expected ':'", "no ':' behind this key", "write KEY: VALUE", True),
    (
        "expected <block end>",
        "the indentation does not fit the lines above",
        "keys of one section begin in the same column, and so do the '- ' of one list",
        False,
    ),
    (
        "expected ',' or ']'",
        "a list in brackets is not closed here, and no comma follows",
        "close it with ], or put a comma",
        False,
    ),
    (
        "expected ',' or '}'",
        "a section in braces is not closed here, and no comma follows",
        "close it with }, or put a comma",
        False,
    ),
    ("found unexpected end of stream", "this quote is never closed", "close it", True),
    (
        "found unknown escape character",
        "no such escape",
        'write it in single quotes, or \\\\ for a "\\"',
        False,
    ),
    ("found undefined alias", "no anchor of that name stands above", "quote it if it is text", False),
    ("second occurrence", "an anchor of that name stands above already", "use another name", False),
    (
        "expected '<document start>'",
        "this does not belong to what stands above",
        "a file is one set of KEY: VALUE lines that begin in the same column",
        False,
    ),
    ("expected the node content", "no value can begin here", "quote it if it is text", False),
    ("cannot start any token", "no value can begin with this character", "quote it if it is text", False),
]


def in_words(error: MarkedYAMLError, line: str) -> SyntaxWords:
    """Return what a finding says about a syntax error; `line` is the source line of its place."""
    problem = " ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    place = _place(mark)
    if line[place.column - 1 : place.column] == "\t" and "cannot start any token" in problem:
        return SyntaxWords("tab", place, "a tab stands where YAML allows only spaces", "write spaces")
    for part, message, hint, at_begin in _TABLE:
        if part not in problem:
            continue
        if at_begin and error.context_mark:
            place = _place(error.context_mark)
        if "${env:" in line and part.startswith(("expected ','", "expected the node")):
            hint = 'inside braces and brackets a variable is quoted: "${env:NAME}"'
        elif part.startswith("expected ','") and error.context_mark:
            hint += f"; it was opened in line {error.context_mark.line + 1}"
        return SyntaxWords("syntax", place, message, hint)
    return SyntaxWords("syntax", place, problem.replace("'\\x00'", "the end of the file"), "")


def problem_line(error: MarkedYAMLError) -> int:
    """Return the number of the line, from 1, where PyYAML met the error."""
    return _place(error.problem_mark or error.context_mark).line


def _place(mark: Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
