"""The expression language: what it means, and what it says about mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from covey.config.expression import (
    COMPARISONS,
    DEEPEST,
    LONGEST,
    MOST,
    Binary,
    Items,
    Literal,
    Name,
    Node,
    Unary,
    parse,
    quote,
    show,
)
from covey.config.predicate import FieldType, predicate
from covey.errors import BadExpression
from hypothesis import given
from hypothesis import strategies as st

FIELDS = {
    "kind": FieldType("text", choices=("request", "event")),
    "topic": FieldType("text"),
    "size": FieldType("number", "By"),
    "id": FieldType("number"),
    "Latency": FieldType("number", "ms"),
    "Length": FieldType("number", "m"),
    "PercentUsed": FieldType("number", "%"),
    "ReadOnly": FieldType("truth"),
    "Since": FieldType("time"),
    "Names": FieldType("text", many=True),
    "Sizes": FieldType("number", "By", many=True),
    "Password": FieldType("text", hidden="it is sensitive"),
    "in": FieldType("number"),
}
VALUES: dict[str, Any] = {
    "kind": "request",
    "topic": "/var/log_1",
    "size": 20_000,
    "id": 5,
    "Latency": 2000,
    "Length": 5,
    "PercentUsed": 91,
    "ReadOnly": False,
    "Since": "2026-02-01T00:00:00.5Z",
    "Names": ["a", "b"],
    "Sizes": [1024],
    "in": None,
}


@pytest.mark.parametrize(
    "text",
    [
        'kind == "request" && topic =~ "/var/*" && size > 1000',
        'kind != "event" && !ReadOnly || size < 0',
        '!(kind == "event") && !kind == "event"',
        'topic like "/v_r/%" && topic like "%log\\\\_1" && !topic like "%x%"',
        'topic =~ "*[0-9]" && !(topic =~ "/VAR*")',
        'kind in ["request", "event"] && id in (-1, 5)',
        '"a" in Names && !("c" in Names) && 1KiB in Sizes',
        "size >= 20kB && 19KiB < size && size - 1KiB > 18000",
        "Latency >= 2s && Latency < 1m && Latency == 2000 && Latency in [2s]",
        "Length == 5m && PercentUsed > 90%",
        "size / 1kB == 20 && size / id == 4000 && id * 2 == 10 && -id == -5 && 2 * (id + 1) == 12",
        'Since > "2026-02-01T00:00:00Z" && Since < "2026-02-01T03:00:00+02:00"',
        "true && ReadOnly == false && !(in == 1 && false)",
        "size > 1 || in > 3",
        "1e3<size&&2.5E+1 < size",
    ],
)
def test_what_holds(text: str) -> None:
    assert predicate(text, FIELDS)(VALUES) is True
    assert parse(show(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("in > 3", None),
        ("!(in > 3)", None),
        ("in > 3 && id == 4", False),
        ("in > 3 && id == 5", None),
        ("in > 3 || id == 4", None),
        ("in in [1] || in + 1 > 0 || -in > 0", None),
        ("id / 0 > 1", None),
        ('Since > "2026-02-02T00:00:00Z"', False),
    ],
)
def test_what_is_not_known_is_neither_true_nor_false(text: str, holds: bool | None) -> None:
    assert predicate(text, FIELDS)(VALUES) is holds
    assert predicate(text, FIELDS)({}) in (None, holds)


def test_a_value_of_another_type_than_was_declared_is_not_known() -> None:
    odd = {"size": "x", "topic": 3, "Since": 5, "Names": None}
    for text in ("size > 3", "size + 1 > 3", 'topic =~ "*"', 'Since > "2026-02-01T00:00:00Z"', '"a" in Names'):
        assert predicate(text, FIELDS)(odd) is None


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 0, "found the end"),
        ('knid == "request"', 0, "did you mean kind?"),
        ('kind = "request"', 5, "write =="),
        ('kind == "requst"', 8, "did you mean request?"),
        ('kind in ["requst"]', 9, "did you mean request?"),
        ("topic == registry", 9, 'a text is quoted: "registry"'),
        ('topic == "registry', 9, "never closed"),
        ('topic < "a"', 6, "allowed: == != =~ like in"),
        ("size =~ 3", 5, "allowed: == != < <= > >= in"),
        ('size > "3"', 7, "size is a number, and this is a text"),
        ("topic == 3", 9, 'write topic == "3"'),
        ('kind == "request" topic == "x"', 18, "join comparisons with &&"),
        ('kind == "request" and ReadOnly', 18, "write &&"),
        ('kind == "request" &&', 20, "found the end"),
        ("kind", 0, "neither true nor false"),
        ("ReadOnly && id", 12, "id is neither true nor false"),
        ("kind # 3", 5, "means nothing here"),
        ("1 < id < 5", 7, "a < b && b < c"),
        ("id == !ReadOnly", 6, "in parentheses"),
        ("(id == 1", 8, "not closed"),
        ("id in [1", 8, "not closed"),
        ("id in [kind]", 7, "a value of the list"),
        ("id in [-true]", 7, "no number"),
        ("id in 5", 6, "is no list"),
        ("id == [5]", 6, "behind `in` only"),
        ("5 in Names", 0, "an item of Names is a text"),
        ('Names == "a"', 0, '"x" in Names'),
        ("size > 5s", 7, "size is in By"),
        ("id > 5s", 5, "id has no unit"),
        ("PercentUsed > 5MB", 14, "is in %"),
        ("Length > 5s", 9, "is in m"),
        ("size + Latency > 3", 7, "Latency is in ms, size is in By"),
        ("topic + 1 > 3", 0, "topic is no number"),
        ('Since > "yesterday"', 8, "is no time"),
        ("Since > 5", 8, "Since is a time"),
        ("ReadOnly > 1", 9, "allowed: == !="),
        ("topic =~ kind", 9, "a pattern is a text"),
        (f'topic =~ "{"x" * 257}"', 9, "at most 256"),
        ("id@prev > 3", 0, "no value before this one"),
        ("id@last > 3", 3, "write id@prev"),
        ('Password == "x"', 0, "it is sensitive"),
        (f"id > {'9' * 41}", 5, "too large"),
        ("id > 1e999", 5, "too large"),
        ("(" * (DEEPEST + 1) + "true" + ")" * (DEEPEST + 1), DEEPEST, "within one another"),
        (" || ".join(["true"] * (MOST + 1)), 8 * MOST, f"more than {MOST}"),
    ],
)
def test_mistakes_show_the_place(text: str, at: int, says: str) -> None:
    with pytest.raises(BadExpression) as caught:
        predicate(text, FIELDS)
    _, shown, carets = caught.value.message.split("\n")
    assert shown == f"  {text}"
    assert carets.index("^") - 2 == at
    assert says in caught.value.message + caught.value.hint


def test_one_that_is_too_long_is_not_shown() -> None:
    with pytest.raises(BadExpression, match=f"at most {LONGEST}") as caught:
        parse("x" * (LONGEST + 1))
    assert len(caught.value.message) < 100


WORDS = st.sampled_from(
    [
        *FIELDS,
        *COMPARISONS,
        "&&",
        "||",
        "!",
        "(",
        ")",
        "[",
        "]",
        ",",
        "@prev",
        "+",
        "-",
        "/",
        '"x"',
        "'a'",
        "5",
        "2s",
        "%",
    ]
)


@given(st.text(max_size=40) | st.lists(WORDS, max_size=12).map(" ".join))
def test_anything_typed_is_understood_or_refused(text: str) -> None:
    try:
        found = predicate(text, FIELDS)
    except BadExpression as problem:
        assert problem.message.count("\n") == 2
        return
    assert found(VALUES) in (True, False, None)
    assert found({}) in (True, False, None)
    assert predicate(show(parse(text)), FIELDS)(VALUES) == found(VALUES)


NUMBERS = st.integers(-(10**20), 10**20) | st.floats(-1e300, 1e300, allow_nan=False).map(lambda value: value + 0.0)
LITERALS = (
    st.builds(Literal, st.text(max_size=8) | st.booleans())
    | st.builds(Literal, NUMBERS, st.sampled_from(["", "s", "%", "KiB", "Cel"]))
)  # fmt: skip
NAMES = st.builds(Name, st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), st.booleans())


def _grown(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    operators = [each for each in COMPARISONS if each != "in"]
    return (
        st.builds(Binary, st.sampled_from([*operators, "&&", "||", "+", "-", "*", "/"]), nodes, nodes)
        | st.builds(
            Binary, st.just("in"), nodes, st.builds(Items, st.lists(LITERALS, min_size=1, max_size=3).map(tuple))
        )
        | st.builds(Unary, st.just("!"), nodes)
        | st.builds(Unary, st.just("-"), NAMES)
    )


@given(st.recursive(LITERALS | NAMES.filter(lambda name: name.name not in ("true", "false")), _grown, max_leaves=12))
def test_what_is_shown_is_parsed_to_the_same(node: Node) -> None:
    assert parse(show(node)) == node


@given(st.text(max_size=20))
def test_any_text_can_be_quoted(text: str) -> None:
    assert parse(quote(text)) == Literal(text)
