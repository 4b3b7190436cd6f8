"""What fits a class and what does not: single values, reports of controllers, orders of callers."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from covey.controllers.classes import TYPES, Action, Attribute, ClassDescription, Field
from covey.controllers.conformance import (
    REDACTED,
    check_key,
    check_reported,
    check_result,
    checked_arguments,
    checked_changes,
    checked_definition,
    checked_key,
    redacted,
)
from covey.controllers.values import from_text, normal, shown
from covey.errors import BadAttribute
from hypothesis import given
from hypothesis import strategies as st

RESET = Action(
    name="Reset",
    arguments=(
        Field(name="Hard", type="bool", default=False, has_default=True),
        Field(name="Wait", type="duration"),
    ),
    result=(Field(name="Took", type="duration"),),
)
GPU = ClassDescription(
    name="Gpu",
    version=1,
    controller="gpu",
    key=("Bus", "Index"),
    attributes=(
        Attribute(name="Bus", type="string", kind="persistent"),
        Attribute(name="Index", type="uint32", kind="persistent"),
        Attribute(name="TempCelsius", type="float64", kind="dynamic", unit="Cel"),
        Attribute(name="PowerLimit", type="float64", kind="persistent", writable=True),
        Attribute(name="Clocks", type="uint32", many=True, kind="dynamic"),
        Attribute(name="Pin", type="string", kind="persistent", sensitive=True, writable=True),
    ),
    actions=(RESET,),
)


class Colour(IntEnum):
    RED = 3


class Word(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("bool", True, True),
        ("int32", -(2**31), -(2**31)),
        ("uint64", 2**64 - 1, 2**64 - 1),
        ("int64", Colour.RED, 3),
        ("float64", 3, 3.0),
        ("float64", 0.1, 0.1),
        ("string", "", ""),
        ("string", Word.RED, "red"),
        ("binary", b"\x00hello", "AGhlbGxv"),
        ("binary", "AGhlbGxv", "AGhlbGxv"),
        ("timestamp", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
        ("timestamp", datetime(2026, 1, 31, 12, 0, 0, 5, timezone(timedelta(hours=2))), "2026-01-31T10:00:00.000005Z"),
        ("timestamp", "2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z"),
        ("duration", timedelta(minutes=1), 60.0),
        ("duration", 3, 3.0),
        ("duration", "250ms", 0.25),
    ],
)
def test_good_values_get_their_normal_form(type_name: Any, value: Any, expected: Any) -> None:
    got = normal(value, Field(name="x", type=type_name))
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("type_name", "value", "text"),
    [
        ("bool", 1, "1 is no bool"),
        ("bool", "true", "'true' is no bool"),
        ("int32", True, "True is no int32"),
        ("int32", 2**31, "it must be from -2147483648 to 2147483647"),
        ("uint32", -1, "it must be from 0 to"),
        ("uint64", 3.0, "3.0 is no uint64"),
        ("int64", None, "null is no int64"),
        ("float64", "3", "'3' is no float64"),
        ("float64", True, "True is no float64"),
        ("float64", math.nan, "must be a finite number; use null"),
        ("float64", 10**400, "must be a finite number"),
        ("float32", 1e39, "must be a finite number"),
        ("string", 3, "3 is no string"),
        ("string", b"x", "a value of type bytes is no string"),
        ("string", "\udcff", "no UTF-8 text"),
        ("string", "x" * 500, ""),
        ("binary", "not base64!", "must be base64"),
        ("binary", 3, "3 is no binary"),
        ("timestamp", datetime(2026, 1, 31), "it has no time zone"),  # noqa: DTZ001 - that is the mistake
        ("timestamp", "2026-01-31T12:00:00", "it has no time zone"),
        ("timestamp", "0001-01-01T00:00:00+14:00", "before the year 1"),
        ("timestamp", "yesterday", "write it like 2026-01-31T12:00:00Z"),
        ("timestamp", 1700000000, "give a datetime with a time zone"),
        ("duration", "5 minutes", "is not a duration"),
        ("duration", math.inf, "must be a finite number"),
    ],
)
def test_bad_values_say_what_is_expected(type_name: Any, value: Any, text: str) -> None:
    if not text:
        assert normal(value, Field(name="x", type=type_name)) == value
        return
    with pytest.raises(ValueError, match=r".") as caught:
        normal(value, Field(name="x", type=type_name))
    assert text in str(caught.value)


def test_lists() -> None:
    field = Field(name="x", type="uint32", many=True)
    assert normal((1, 2), field) == [1, 2]
    for value, text in (([1, -2], "item 2: -2 is no uint32"), ("12", "'12' is no list of uint32"), ({1}, "type set")):
        with pytest.raises(ValueError, match=text):
            normal(value, field)


@given(
    st.sampled_from(TYPES),
    st.booleans(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.datetimes()
        | st.datetimes(timezones=st.timezones())
        | st.timedeltas(),
        st.lists,
        max_leaves=5,
    ),
)
def test_whatever_comes_in_what_goes_out_is_json_and_stays_as_it_is(type_name: Any, many: bool, value: Any) -> None:
    """Any value is refused with ValueError, or its normal form survives JSON and is normal itself."""
    field = Field(name="x", type=type_name, many=many)
    try:
        first = normal(value, field)
    except ValueError:
        return
    assert normal(json.loads(json.dumps(first)), field) == first


def test_shown_is_short() -> None:
    assert shown(object()) == "a value of type object"
    assert len(shown("x" * 1000)) == 80


def test_a_report_keeps_what_fits_and_names_what_does_not() -> None:
    good, misfits = check_reported(GPU, {"TempCelsius": 41, "TempC": 40, "Clocks": [1, "x"], "PowerLimit": None})
    assert good == {"TempCelsius": 41.0, "PowerLimit": None}
    assert [(one.code, one.attribute) for one in misfits] == [
        ("plugin.undeclared_attribute", "TempC"),
        ("plugin.bad_value", "Clocks"),
    ]
    assert misfits[0].message == "Gpu reports 'TempC', which its description does not declare"
    assert misfits[0].hint.startswith("did you mean 'TempCelsius'? declared: Bus, Clocks")
    assert misfits[1].message == "Gpu.Clocks: item 2: 'x' is no uint32"


def test_a_report_that_is_no_mapping() -> None:
    good, (misfit,) = check_reported(GPU, [("TempCelsius", 3)])
    assert good == {}
    assert "not a mapping" in misfit.message


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ({"Bus": "a"}, "the key is Bus"),
        ({}, "the key is nothing"),
        ({"Bus": "a", "Index": 1, "PowerLimit": 3.0}, "the key is Bus, Index, PowerLimit"),
        ({"Bus": "a", "Index": None}, "null is no uint32"),
        ({"Bus": "a", "Indx": 1}, "'Indx', which its description does not declare"),
        ("a", "not a mapping"),
    ],
)
def test_a_key_has_exactly_its_attributes(key: Any, text: str) -> None:
    good, misfits = check_key(GPU, key)
    assert good is None
    assert text in misfits[0].message
    with pytest.raises(BadAttribute, match=text.replace("(", ".")):
        checked_key(GPU, key)


def test_a_good_key() -> None:
    assert check_key(GPU, {"Index": 1, "Bus": "a"}) == ({"Index": 1, "Bus": "a"}, [])
    assert checked_key(GPU, {"Index": 1, "Bus": "a"}) == {"Index": 1, "Bus": "a"}


def test_sensitive_values_are_shown_nowhere() -> None:
    assert redacted(GPU, {"Pin": "1234", "Bus": "a"}) == {"Pin": REDACTED, "Bus": "a"}
    assert redacted(GPU, {"Pin": None}) == {"Pin": None}
    _, (misfit,) = check_reported(GPU, {"Pin": 1234})
    assert "1234" not in misfit.message
    assert check_reported(GPU, {"Pin": REDACTED}) == ({"Pin": REDACTED}, [])
    with pytest.raises(BadAttribute) as caught:
        checked_changes(GPU, {"Pin": 1234})
    assert "1234" not in str(caught.value)


def test_a_set_is_taken_whole_or_not_at_all() -> None:
    assert checked_changes(GPU, {"PowerLimit": 200}) == {"PowerLimit": 200.0}
    with pytest.raises(BadAttribute) as caught:
        checked_changes(GPU, {"PowerLimit": "x", "TempCelsius": 3.0, "PowerLimt": 3})
    for text in (
        "PowerLimit: 'x' is no float64",
        "TempCelsius cannot be set",
        "did you mean 'PowerLimit'?",
        "nothing was set",
    ):
        assert text in str(caught.value)
    with pytest.raises(BadAttribute, match="no attribute to set"):
        checked_changes(GPU, {})


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        (Field(name="x", type="bool"), "true", True),
        (Field(name="x", type="string"), "a,b", "a,b"),
        (Field(name="x", type="string", many=True), "a, b", ["a", "b"]),
        (Field(name="x", type="string", many=True), '["a,b"]', ["a,b"]),
        (Field(name="x", type="uint32", many=True), "", []),
        (Field(name="x", type="int64"), "-3", -3),
        (Field(name="x", type="uint64", unit="By"), "10GiB", 10 * 2**30),
        (Field(name="x", type="uint64", unit="By"), "1.5kB", 1500),
        (Field(name="x", type="float64", unit="W"), "180W", 180.0),
        (Field(name="x", type="float64", unit="%"), "80.5 %", 80.5),
        (Field(name="x", type="float64", unit="ms"), "2s", 2000.0),
        (Field(name="x", type="duration"), "2m", 120.0),
        (Field(name="x", type="timestamp"), "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00Z"),
    ],
)
def test_what_people_type_is_read_by_the_type(field: Field, text: str, value: Any) -> None:
    assert normal(from_text(text, field), field) == value


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        (Field(name="x", type="bool"), "yes", "write true or false"),
        (Field(name="x", type="uint32"), "25O", "has a unit that does not fit: it has none"),
        (Field(name="x", type="uint32"), "1.5", "is no uint32"),
        (Field(name="x", type="uint64", unit="By"), "5s", "units: B, kB"),
        (Field(name="x", type="uint64", unit="By"), "much", "units: B, kB"),
        (Field(name="x", type="duration"), "5", "write 5s or 5ms"),
        (Field(name="x", type="uint32", many=True), "1,x", "'x' is no uint32"),
        (Field(name="x", type="uint32", many=True), "[1", "write a,b or JSON"),
        (Field(name="x", type="uint32", sensitive=True), "hunter2", "the value is no uint32"),
    ],
)
def test_what_is_typed_wrongly_is_said(field: Field, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        normal(from_text(text, field), field)


@given(st.sampled_from(TYPES), st.booleans(), st.text(max_size=20))
def test_any_text_is_read_or_refused(type_name: Any, many: bool, text: str) -> None:
    field = Field(name="x", type=type_name, many=many)
    try:
        value = normal(from_text(text, field), field)
    except ValueError:
        return
    assert normal(value, field) == value


def test_a_definition_has_its_key_what_is_required_and_defaults() -> None:
    lamp = ClassDescription(
        name="Lamp",
        version=1,
        controller="lamps",
        key=("Name",),
        attributes=(
            Attribute(name="Name", type="string", kind="persistent"),
            Attribute(name="Watts", type="float64", kind="persistent", unit="W", required=True),
            Attribute(name="Colour", type="string", kind="persistent", writable=True, default="red", has_default=True),
            Attribute(name="Hours", type="float64", kind="dynamic"),
        ),
    )
    given = {"Name": "desk", "Watts": "40W"}
    assert checked_definition(lamp, given, as_text=True) == ({"Name": "desk"}, {"Watts": 40.0, "Colour": "red"})
    with pytest.raises(BadAttribute) as caught:
        checked_definition(lamp, {"Wats": 3, "Hours": 1, "Colour": 5})
    for words in ("did you mean 'Watts'?", "Hours is the controller's to say", "Colour: 5 is no string"):
        assert words in caught.value.message
    assert "Name (string) is missing; Watts (float64) is missing" in caught.value.message


def test_arguments_of_an_action() -> None:
    assert checked_arguments(GPU, RESET, {"Wait": "30s"}) == {"Wait": 30.0, "Hard": False}
    with pytest.raises(BadAttribute) as caught:
        checked_arguments(GPU, RESET, {"Hrad": True, "Hard": 1})
    for text in (
        "did you mean 'Hard'?",
        "Hard: 1 is no bool",
        "argument Wait (duration) is missing",
        "nothing was run",
    ):
        assert text in str(caught.value)


def test_result_of_an_action() -> None:
    assert [found.message for found in check_result(GPU, RESET, None)[1]] == [
        "Gpu.Reset: did not return 'Took', which it declares"
    ]
    good, misfits = check_result(GPU, RESET, {"Took": timedelta(seconds=2), "Tok": 1})
    assert good == {"Took": 2.0}
    assert misfits[0].message == "Gpu.Reset: returned 'Tok', which its description does not declare"
    assert check_result(GPU, RESET, 3)[1][0].message == "Gpu.Reset: returned 3, not a mapping"
    assert check_result(GPU, RESET, {"Took": "soon"})[1][0].code == "plugin.bad_value"
