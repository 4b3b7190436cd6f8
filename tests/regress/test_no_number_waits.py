"""A watch with `wait: NaN` was parked until a time that never comes, and the primary's deadline was no number then."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from covey.bus.service import Verb
from covey.components.groups.service import GroupsService
from covey.components.registry.service import RegistryService
from covey.components.resources.service import ResourcesService
from covey.errors import BadArguments


def waiting(service: Any) -> list[Verb]:
    """Return the verbs that take a `wait`."""
    verbs = [
        Verb(name, getattr(object.__new__(service), name), function.__covey_role__)
        for name, function in vars(service).items()
        if hasattr(function, "__covey_role__")
    ]
    return [verb for verb in verbs if "wait" in verb.arguments.__struct_fields__]


@pytest.mark.parametrize("service", [RegistryService, GroupsService, ResourcesService])
def test_how_long_is_a_number_that_is_not_negative(service: Any) -> None:
    given = {"prefix": "/", "group": "g", "cls": "c", "select": ""}
    assert waiting(service)
    for verb in waiting(service):
        names = verb.arguments.__struct_fields__
        for wait, good in ((math.nan, False), (-1.0, False), (0.0, True), (2.5, True)):
            arguments = {name: value for name, value in given.items() if name in names} | {"wait": wait}
            (read,) = verb.read(msgspec.msgpack.encode(arguments), 1)
            assert isinstance(read, BadArguments) is not good, (verb.name, wait, read)
