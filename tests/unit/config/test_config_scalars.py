"""YAML 1.2 core types, and variables in scalars."""

from __future__ import annotations

import math

import pytest
from covey.config.scalars import resolve, substitute


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "No",
        "NO",
        "on",
        "off",
        "yes",
        "y",
        "n",
        "1:30",
        "12:30:45",
        "2026-01-02",
        "2026-01-02T03:04:05Z",
        "1_000",
        "0b101",
        "0O14",
        "-0x1F",
        "0x",
        "0o8",
        "1e",
        "e1",
        ".",
        "+",
        "nan",
        "inf",
        ".Nan",
        "tRUE",
        "nil",
        "5m",
    ],
)
def test_stays_text(text: str) -> None:
    assert resolve(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("0", 0),
        ("012", 12),
        ("-7", -7),
        ("+7", 7),
        ("0o14", 12),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1e3", -1000.0),
        ("1E-2", 0.01),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("+.INF", math.inf),
    ],
)
def test_core_types(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(float(resolve(".nan") or 0))


def test_a_number_beyond_all_bounds_is_text() -> None:
    digits = "9" * 5000
    assert resolve(digits) == digits


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${env:A}", "one"),
        ("x-${env:A}-${env:B}", "x-one-two"),
        ("${env:NOT:-three}", "three"),
        ("${env:EMPTY:-three}", "three"),
        ("${env:EMPTY}", ""),
        ("${env:NOT:-}", ""),
        ("${env:A:-three}", "one"),
        ("$${env:A}", "${env:A}"),
        ("${HOME} $A {env:A}", "${HOME} $A {env:A}"),
        ("${env:STRUCTURE}", "{a: 1}\nb: ${env:A}"),
    ],
)
def test_variables(text: str, result: str) -> None:
    env = {"A": "one", "B": "two", "EMPTY": "", "STRUCTURE": "{a: 1}\nb: ${env:A}"}
    assert substitute(text, env) == (result, [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${env:NOT}", "unset_variable"),
        ("${env:}", "bad_variable"),
        ("${env:1A}", "bad_variable"),
        ("${env:A", "bad_variable"),
        ("${env:A-b}", "bad_variable"),
        ("${env:BYTES}", "bad_variable"),
    ],
)
def test_variables_that_do_not_work(text: str, code: str) -> None:
    _, problems = substitute(f"a {text}", {"A": "one", "BYTES": "\udcff"})
    assert [(problem.code, problem.written) for problem in problems] == [(code, text)]


def test_each_variable_has_its_own_problem() -> None:
    assert len(substitute("${env:X}${env:Y}", {})[1]) == 2
