"""The tap's filter language: what it means, and what it says about mistakes."""

from __future__ import annotations

import pytest
from covey.bus.tap import FIELDS, Condition
from covey.cli.expression import OPERATORS, parse
from covey.errors import BadExpression, NotImplementedYet
from hypothesis import given
from hypothesis import strategies as st


def told(text: str) -> list[tuple[str, str, object]]:
    return [(found.field, found.operator, found.value) for found in parse(text, FIELDS)]


def test_comparisons_joined() -> None:
    assert told('kind == "request" && topic =~ "registry.*" && size > 1000') == [
        ("kind", "==", "request"),
        ("topic", "=~", "registry.*"),
        ("size", ">", 1000),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("source != 'client-1@2'", "client-1@2"),
        (r'topic == "with \"quotes\" and \\"', 'with "quotes" and \\'),
        ("size<=1.5", 1.5),
        ("id==-3", -3),
        ('  cause   ==\t"x && y"  ', "x && y"),
    ],
)
def test_values(text: str, value: object) -> None:
    assert told(text)[0][2] == value


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 0, "expected the name of a field"),
        ('knid == "request"', 0, "did you mean kind?"),
        ('kind = "request"', 5, "write =="),
        ('kind == "requst"', 8, "did you mean request?"),
        ("topic == registry", 9, 'write topic == "registry"'),
        ('topic == "registry', 9, "never closed"),
        ('topic < "a"', 6, "allowed: == != =~"),
        ("size =~ 3", 5, "allowed: == != <= >= < >"),
        ('size > "3"', 7, "compared with a number"),
        ('kind == "request" topic == "x"', 18, "join comparisons with &&"),
        ('kind == "request" &&', 20, "expected the name of a field"),
        ("kind", 4, "found the end"),
        ("kind # 3", 5, "means nothing here"),
        ("size > 10kB", 7, "means nothing here"),
    ],
)
def test_mistakes_show_the_place(text: str, at: int, says: str) -> None:
    with pytest.raises(BadExpression) as caught:
        parse(text, FIELDS)
    _, shown, carets = caught.value.message.split("\n")
    assert shown == f"  {text}"
    assert carets.index("^") - 2 == at
    assert says in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ['kind == "event" || size > 1', '!(kind == "event")', 'topic like "x%"'])
def test_what_the_language_will_have_is_named(text: str) -> None:
    with pytest.raises(NotImplementedYet, match=r"SPEC 13\.4"):
        parse(text, FIELDS)


@given(st.text(max_size=40))
def test_anything_typed_is_understood_or_refused(text: str) -> None:
    try:
        found = parse(text, FIELDS)
    except (BadExpression, NotImplementedYet):
        return
    for condition in found:
        Condition(**condition.as_dict()).compiled()  # what is accepted here, the broker accepts


@given(st.sampled_from(["topic", "source"]), st.sampled_from(OPERATORS[:3]), st.text(max_size=20))
def test_a_quoted_text_comes_back(field: str, operator: str, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    try:
        found = told(f'{field} {operator} "{quoted}"')
    except BadExpression:
        assert "\n" in value  # a line end ends the text
        return
    assert found == [(field, operator, value)]
