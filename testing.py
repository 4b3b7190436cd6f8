"""What authors of plugins test with. `check_controller` runs a controller against its own description, without a node.

The checks are those that a node makes, so what passes here is not refused there. It needs no pytest.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .bus.messages import Role
from .bus.service import Request
from .controllers.binding import Bound, bind
from .controllers.caller import Caller
from .controllers.contract import Controller
from .controllers.served import ServedController
from .errors import CoveyError
from .plugins.blame import home_of

__all__ = ["check_controller"]


def check_controller(controller: type[Controller]) -> list[dict[str, Any]]:
    """Discover and read everything, and hold it against the description, both ways.

    Returns what was found as `{class, id, key, attributes}`, the dynamic attributes among them. Raises AssertionError
    with one line per finding: a description or class that does not fit, a resource or attribute that is not declared, a
    value of another type, an attribute that is declared and never reported, a method that raises or hangs.
    """
    try:
        bound = bind("", controller)
    except CoveyError as error:
        raise AssertionError(str(error)) from error
    found, problems = asyncio.run(_run(bound))
    problems += _never_reported(bound, found)
    if problems:
        raise AssertionError("\n".join([f"{controller.__name__} does not keep its description:", *problems]))
    return found


async def _run(bound: Bound) -> tuple[list[dict[str, Any]], list[str]]:
    home = home_of(bound.controller.__module__)
    caller = Caller(bound.name, home)
    request = Request("test", 1, Role.COMPONENT)
    try:
        made = await caller.call(bound.controller, deadline=10.0)
        served = ServedController(bound.name, lambda: 1, home=home, bound=bound, controller=made, caller=caller)
        answer = await served.discover(request)
        found, problems = answer["found"], _lines(answer["findings"])
        for one in found:
            if not _declared(bound, one["class"], "dynamic"):
                continue
            answer = await served.read(request, cls=one["class"], key=one["key"])
            one["attributes"] = one["attributes"] | answer["attributes"]
            problems += _lines(answer["findings"])
    except CoveyError as error:
        return [], [f"- {error.code}: {error}"]
    finally:
        caller.close()
    return found, problems


def _never_reported(bound: Bound, found: list[dict[str, Any]]) -> list[str]:
    problems = []
    for one in bound.classes:
        reported = [set(item["attributes"]) for item in found if item["class"] == one.name]
        if reported:
            declared = {name for kind in ("persistent", "dynamic") for name in _declared(bound, one.name, kind)}
            missing = sorted(declared - set(one.key) - set().union(*reported))
            problems += [f"- {one.name}.{name} is declared, and was never reported" for name in missing]
    return problems


def _declared(bound: Bound, class_name: str, kind: str) -> list[str]:
    found = bound.description.get(class_name)
    return [one.name for one in found.attributes if one.kind == kind] if found else []


def _lines(findings: list[dict[str, Any]]) -> list[str]:
    return [f"- {one['code']}: {one['message']}" + (f" ({one['hint']})" if one["hint"] else "") for one in findings]
