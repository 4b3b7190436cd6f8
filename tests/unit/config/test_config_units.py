"""Durations and sizes."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from covey.config.document import read_bytes
from covey.config.units import Duration, Size, between, seconds, show_bytes, show_seconds, size_bytes
from pydantic import BaseModel


class Example(BaseModel):
    time: Duration = 0.0
    bounded: Annotated[Duration, between("100ms", "60s")] = 1.0
    size: Annotated[Size, between("1KiB", "1GB")] = 1024


def finding(text: str) -> tuple[str, str, str]:
    found, findings = read_bytes(text.encode(), Example, file="f.yaml", env={})
    assert found is None
    assert len(findings) == 1
    return findings[0].code, findings[0].message, findings[0].hint


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("3s", 3.0), ("1.5s", 1.5), ("5m", 300.0), ("2h", 7200.0), ("1d", 86400.0)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0B", 0),
        ("7B", 7),
        ("2kB", 2000),
        ("1MB", 10**6),
        ("1GB", 10**9),
        ("1KiB", 1024),
        ("1.5MiB", 1572864),
        ("1GiB", 2**30),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert size_bytes(text) == value


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("5 minutes", "write 5m"),
        ("5 m", "write 5m"),
        ("5min", "write 5m"),
        ("10 Seconds", "write 10s"),
        ("5M", "write 5m"),
        ("1h30m", "write 90m"),
        ("1 hour, 30 seconds", "write 3630s"),
        ("2 weeks", "write 14d"),
        ("half an hour", "units:"),
        ("-5s", "units:"),
        ("1e3s", "units:"),
        ("'3'", "units:"),
        ("5 fortnights", "units:"),
        ("''", "units:"),
        ("9999999999999999999999999999999s", "units:"),
    ],
)
def test_wrong_durations(written: str, hint: str) -> None:
    code, _, found = finding(f"time: {written}")
    assert code == "config.bad_duration"
    assert found.startswith(hint)


@pytest.mark.parametrize(
    ("written", "hint"), [("3", "write 3s or 3m"), ("0.5", "write 0.5s or 0.5m"), ("-3", "units:"), (".inf", "units:")]
)
def test_bare_numbers(written: str, hint: str) -> None:
    code, message, found = finding(f"time: {written}")
    assert (code, message) == ("config.needs_unit", "a duration needs a unit")
    assert found.startswith(hint)


@pytest.mark.parametrize(
    ("written", "code", "hint"),
    [
        ("4096", "config.needs_unit", "write 4096KiB or 4096MiB"),
        ("10mb", "config.bad_size", "write 10MB"),
        ("10M", "config.bad_size", "write 10MiB or 10MB"),
        ("10 KiB", "config.bad_size", "write 10KiB"),
        ("64 bytes", "config.bad_size", "write 64B"),
        ("1.00001KiB", "config.bad_size", "write a smaller unit"),
        ("big", "config.bad_size", "units: B"),
        ("512B", "config.out_of_range", "write 1KiB or more"),
        ("2GB", "config.out_of_range", "write 1GB or less"),
        ("[]", "config.wrong_type", "for example 10MiB"),
        ("true", "config.wrong_type", "for example 10MiB"),
    ],
)
def test_wrong_sizes(written: str, code: str, hint: str) -> None:
    found = finding(f"size: {written}")
    assert found[0] == code
    assert found[2].startswith(hint)


@pytest.mark.parametrize(("written", "good"), [("99ms", False), ("100ms", True), ("60s", True), ("61s", False)])
def test_limits_are_allowed_values(written: str, good: bool) -> None:
    if good:
        assert read_bytes(f"bounded: {written}".encode(), Example, file="f", env={})[1] == []
    else:
        assert finding(f"bounded: {written}")[0] == "config.out_of_range"


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "250ms"), (90.0, "90s"), (300.0, "5m"), (86400.0, "1d"), (0.0, "0s"), (1.5, "1500ms")]
)
def test_durations_are_shown_as_they_are_written(value: float, text: str) -> None:
    assert show_seconds(value) == text
    assert seconds(text) == value


@pytest.mark.parametrize(("value", "text"), [(0, "0B"), (1000, "1000B"), (1024, "1KiB"), (3 * 2**30, "3GiB")])
def test_sizes_are_shown_as_they_are_written(value: int, text: str) -> None:
    assert show_bytes(value) == text
    assert size_bytes(text) == value


def test_the_json_schema_is_of_text() -> None:
    schema: dict[str, Any] = Example.model_json_schema()
    assert schema["properties"]["time"]["type"] == "string"
    assert schema["properties"]["size"]["type"] == "string"
