"""Every way in which a plugin can be bad: it is listed with its reason, and the good ones beside it run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.errors import NotFound
from covey.plugins.hookspecs import Component
from covey.plugins.manager import PluginManager, PluginStatus

Install = Callable[..., Path]

COMPONENTS = "covey.components"

GOOD = """
from covey.plugins.hookspecs import Component, hookimpl

@hookimpl
def covey_component():
    return Component(name=__name__, summary="A good one.", main="nowhere:main")
"""


def component(install: Install, name: str, text: str, **more: Any) -> None:
    module = name.replace("-", "_")
    install(f"covey-{name}", {f"{module}/__init__.py": text}, {COMPONENTS: {name: module}}, **more)


def of(manager: PluginManager, name: str, package: str = "") -> PluginStatus:
    (found,) = [one for one in manager.status() if one.name == name and package in ("", one.package)]
    return found


def others(results: list[tuple[str, Any]]) -> list[str]:
    """The names of the fake plugins that gave a result, without those that covey ships."""
    shipped = {"dcm", "registry", "liveness", "groups", "resources"}
    return [name for name, _ in results if name not in shipped]


def test_listing_imports_nothing(install: Install) -> None:
    component(install, "loud", "raise SystemExit('imported')", version="2.1")
    manager = PluginManager()
    status = of(manager, "loud")
    assert (status.package, status.version, status.state) == ("covey-loud", "2.1", "found")
    assert [one.value for one in manager.candidates(COMPONENTS) if one.name == "loud"] == ["loud"]
    assert "loud" not in sys.modules


def test_good_one_runs_and_answers(install: Install) -> None:
    component(install, "good", GOOD)
    manager = PluginManager()
    assert "good" in manager.load(COMPONENTS)
    assert of(manager, "good") == PluginStatus("good", COMPONENTS, "covey-good", "1.0", "running", "")
    results = dict(manager.call("covey_component"))
    assert results["good"].summary == "A good one."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import lib_that_is_not_there", "import: No module named 'lib_that_is_not_there' (bad/__init__.py:1)"),
        ("\nraise OSError('libfoo.so not found')", "import: libfoo.so not found (bad/__init__.py:2)"),
        ("x = {}\nx['key']", "import: KeyError: 'key' (bad/__init__.py:2)"),
        ("import sys\nsys.exit(3)", "import: SystemExit: 3 (bad/__init__.py:2)"),
        ("class Odd(BaseException): pass\nraise Odd()", "import: Odd (bad/__init__.py:2)"),
        ("import asyncio\nraise asyncio.CancelledError", "import: CancelledError (bad/__init__.py:2)"),
        ("def f(:\n", "import: SyntaxError: invalid syntax (__init__.py, line 1) (bad/__init__.py:1)"),
        (
            "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
            "import: Odd: (its text cannot be made) (bad/__init__.py:3)",
        ),
        ("x = 1", "hooks: bad has no function marked with covey.hookimpl"),
        (
            "from covey.plugins.hookspecs import hookimpl\n@hookimpl\ndef covey_componnent(): pass",
            "hooks: there is no hook 'covey_componnent'; did you mean 'covey_component'?",
        ),
        (
            "from covey.plugins.hookspecs import hookimpl\n@hookimpl\ndef covey_identity_sources(): pass",
            "hooks: bad does not implement covey_component",
        ),
        (
            "from covey.plugins.hookspecs import hookimpl\n@hookimpl(wrapper=True)\ndef covey_component(): yield",
            "hooks: covey_component is a wrapper; wrappers are not supported",
        ),
    ],
)
def test_one_that_does_not_load(install: Install, text: str, reason: str) -> None:
    component(install, "bad", text)
    component(install, "good", GOOD)
    manager = PluginManager()
    loaded = manager.load(COMPONENTS)
    assert "bad" not in loaded
    assert (of(manager, "bad").state, of(manager, "bad").reason) == ("failed", reason)
    assert others(manager.call("covey_component")) == ["good"]


def test_wrong_arguments_of_a_hook(install: Install) -> None:
    component(
        install, "bad", "from covey.plugins.hookspecs import hookimpl\n@hookimpl\ndef covey_component(colour): pass"
    )
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert of(manager, "bad").state == "failed"
    assert "{'colour'} are declared in the hookimpl but can not be found" in of(manager, "bad").reason


def test_failure_in_a_library_names_the_plugins_own_line(install: Install) -> None:
    component(install, "bad", "\n\nimport json\nvalue = json.loads('{')")
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert of(manager, "bad").reason.endswith("(bad/__init__.py:4)")


def test_half_a_registration_is_rolled_back(install: Install) -> None:
    """The good hook of a plugin whose other hook is not one must not be called."""
    component(install, "bad", GOOD + "\n@hookimpl\ndef covey_zebra(): pass\n")
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert of(manager, "bad").state == "failed"
    assert others(manager.call("covey_component")) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('no')", "hook covey_component: RuntimeError: no (bad/__init__.py:5)"),
        ("raise SystemExit", "hook covey_component: SystemExit (bad/__init__.py:5)"),
        ("return 'text'", "hook covey_component: returned str, not Component"),
    ],
)
def test_raising_hook_hurts_no_other(install: Install, body: str, reason: str) -> None:
    text = f"\nfrom covey.plugins.hookspecs import hookimpl\n@hookimpl\ndef covey_component():\n    {body}\n"[1:]
    component(install, "bad", "\n" + text)
    component(install, "a-first", GOOD)
    component(install, "z-last", GOOD)
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert others(manager.call("covey_component")) == ["a-first", "z-last"]
    assert of(manager, "bad").state == "failed"
    assert of(manager, "bad").reason == reason
    assert others(manager.call("covey_component")) == ["a-first", "z-last"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("'text'", "returned str, not list"),
        ("['text']", "returned a list with str in it, not IdentitySource"),
        ("[None]", "returned a list with NoneType in it, not IdentitySource"),
    ],
)
def test_a_hook_that_returns_a_list_of_something_else(install: Install, result: str, reason: str) -> None:
    text = f"from covey.plugins.hookspecs import hookimpl\n@hookimpl\ndef covey_identity_sources(): return {result}"
    install("covey-bad", {"bad.py": text}, {"covey": {"bad": "bad"}})
    manager = PluginManager()
    manager.load("covey")
    assert [name for name, _ in manager.call("covey_identity_sources")] == ["identity"]
    assert of(manager, "bad").reason == f"hook covey_identity_sources: {reason}"


def test_coveys_own_come_first_whatever_others_ask_for(install: Install) -> None:
    component(install, "late", GOOD.replace("@hookimpl", "@hookimpl(trylast=True)"))
    component(install, "middle", GOOD)
    component(install, "early", GOOD.replace("@hookimpl", "@hookimpl(tryfirst=True)"))
    manager = PluginManager()
    manager.load(COMPONENTS)
    names = [name for name, _ in manager.call("covey_component")]
    assert set(names[:5]) == {"dcm", "registry", "liveness", "groups", "resources"}
    assert names[5:] == ["early", "middle", "late"]


def test_async_hook_is_a_wrong_type_and_leaves_no_warning(install: Install) -> None:
    component(
        install, "bad", "from covey.plugins.hookspecs import hookimpl\n@hookimpl\nasync def covey_component(): pass"
    )
    manager = PluginManager()
    manager.load(COMPONENTS)
    manager.call("covey_component")
    assert of(manager, "bad").reason == "hook covey_component: returned coroutine, not Component"


def test_keyboard_interrupt_is_not_the_plugins(install: Install) -> None:
    component(install, "bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        PluginManager().load(COMPONENTS)


def test_covey_wins_a_name_and_both_packages_are_named(install: Install) -> None:
    component(install, "liveness", "raise SystemExit('imported')")
    manager = PluginManager()
    assert manager.load(COMPONENTS)["liveness"].__name__ == "covey.components.liveness"
    assert of(manager, "liveness", "covey").state == "running"
    lost = of(manager, "liveness", "covey-liveness")
    assert lost.state == "shadowed"
    assert "both covey and covey-liveness have a plugin 'liveness'; covey is used" in lost.reason


def test_first_package_by_name_wins_among_third_parties(install: Install) -> None:
    install("zebra", {"zebra.py": GOOD}, {COMPONENTS: {"same": "zebra"}})
    install("Aardvark", {"aardvark.py": GOOD}, {COMPONENTS: {"same": "aardvark"}})
    manager = PluginManager()
    assert manager.load(COMPONENTS)["same"].__name__ == "aardvark"
    assert of(manager, "same", "zebra").state == "shadowed"
    assert "both Aardvark and zebra" in of(manager, "same", "zebra").reason


def test_one_name_in_two_groups_is_no_clash(install: Install) -> None:
    install(
        "covey-gpu",
        {"gpu.py": GOOD + "class Gpu: pass"},
        {COMPONENTS: {"gpu": "gpu"}, "covey.controllers": {"gpu": "gpu:Gpu"}},
    )
    manager = PluginManager()
    assert manager.load(COMPONENTS)["gpu"].__name__ == "gpu"
    assert manager.load("covey.controllers", only=["gpu"])["gpu"].__name__ == "Gpu"
    assert manager.why("gpu").count("found by entry point") == 2


def test_one_module_under_two_names(install: Install) -> None:
    install("covey-twice", {"twice.py": GOOD}, {COMPONENTS: {"one": "twice", "two": "twice"}})
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert of(manager, "one").state == "running"
    assert of(manager, "two").reason == "hooks: twice is already loaded as covey.components:one"
    assert others(manager.call("covey_component")) == ["one"]


def test_blocked_is_not_imported_and_unknown_blocks_are_told(install: Install) -> None:
    component(install, "loud", "raise SystemExit('imported')")
    manager = PluginManager(blocked={"loud": "no such hardware here", "luod": "typo"})
    manager.load(COMPONENTS)
    assert (of(manager, "loud").state, of(manager, "loud").reason) == ("blocked", "no such hardware here")
    assert manager.problems == ["there is no blocked plugin 'luod'; did you mean 'loud'?"]
    assert "loud" not in sys.modules


def test_safe_mode_loads_only_what_covey_ships(install: Install) -> None:
    component(install, "good", GOOD)
    manager = PluginManager(safe=True)
    assert set(manager.load(COMPONENTS)) == {"dcm", "registry", "liveness", "groups", "resources"}
    assert of(manager, "good").reason.startswith("safe mode")


def test_another_api_version_is_incompatible(install: Install) -> None:
    component(install, "old", GOOD + "\ncovey_api = 7\n")
    component(install, "new", GOOD + "\ncovey_api = 1\n")
    manager = PluginManager()
    manager.load(COMPONENTS)
    assert of(manager, "old").state == "incompatible"
    assert of(manager, "old").reason == "api: old needs covey api 7, this covey has 1"
    assert of(manager, "new").state == "running"


def test_entry_point_that_leads_nowhere(install: Install) -> None:
    install(
        "covey-lost",
        {"lost.py": "class Found: pass"},
        {"covey.controllers": {"one": "lost:Fuond", "two": "nothing.there:X", "three": "3 x", "f/our": "lost:Found"}},
    )
    manager = PluginManager()
    assert set(manager.load("covey.controllers", only=["one", "two", "three"])) == set()
    assert of(manager, "one").reason == "import: there is no name in lost: 'Fuond'; did you mean 'Found'?"
    assert of(manager, "two").reason == "import: No module named 'nothing'"
    assert of(manager, "three").reason == "metadata: '3 x' is not of the form package.module:name"
    assert of(manager, "f/our").reason.startswith("name: 'f/our' is not a plugin name")


def test_unreadable_metadata_ends_nothing(install: Install) -> None:
    site = install("covey-torn", {}, {})
    (site / "covey_torn-1.0.dist-info" / "entry_points.txt").write_text("[covey.components]\nno equals sign\n")
    (site / "other-1.dist-info").mkdir()
    (site / "other-1.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[covey]\n")
    component(install, "good", GOOD)
    manager = PluginManager()
    assert "good" in manager.load(COMPONENTS)
    assert of(manager, "covey-torn").state == "failed"
    assert "entry_points.txt of covey-torn cannot be read" in of(manager, "covey-torn").reason


def test_acceptance_is_the_callers(install: Install) -> None:
    install(
        "covey-any",
        {"anything.py": "thing = 3\nother = 4"},
        {"covey.controllers": {"a": "anything:thing", "b": "anything:other"}},
    )

    def accept(name: str, found: Any) -> None:
        if found == 3:
            raise TypeError(f"{name} is three")

    manager = PluginManager()
    assert manager.load("covey.controllers", only=["a", "b"], accept=accept) == {"b": 4}
    assert of(manager, "a").reason == "check: TypeError: a is three"


def test_why_tells_the_whole_story(install: Install) -> None:
    component(install, "bad", "def helper():\n    import no_such_driver\n\nhelper()\n", version="1.3.0")
    manager = PluginManager()
    manager.load(COMPONENTS)
    text = manager.why("bad")
    assert text.splitlines()[0] == "bad: failed: import: No module named 'no_such_driver' (bad/__init__.py:2)"
    assert "found by entry point 'bad' = bad of group covey.components in covey-bad 1.3.0" in text
    assert "line 4, in <module>" in text and "line 2, in helper" in text
    assert "manager.py" not in text and "importlib" not in text
    assert "Other plugins are not affected." in text


def test_unknown_names_are_errors_with_a_suggestion() -> None:
    manager = PluginManager()
    with pytest.raises(NotFound, match="did you mean 'liveness'"):
        manager.why("livenes")
    with pytest.raises(NotFound, match="did you mean 'registry'"):
        manager.load(COMPONENTS, only=["registri"])
    with pytest.raises(NotFound, match=r"did you mean 'covey.components'"):
        manager.load("covey.component")


def test_found_bad_later(install: Install) -> None:
    component(install, "good", GOOD)
    manager = PluginManager()
    manager.load(COMPONENTS)
    manager.fail(COMPONENTS, "good", "declares a component name that is taken")
    assert of(manager, "good").state == "failed"
    assert others(manager.call("covey_component")) == []


def test_loading_twice_imports_once(install: Install) -> None:
    component(install, "good", GOOD)
    manager = PluginManager()
    assert manager.load(COMPONENTS)["good"] is manager.load(COMPONENTS, only=["good"])["good"]


def test_covey_ships_these(install: Install) -> None:
    manager = PluginManager(safe=True)
    manager.load(COMPONENTS)
    declared = manager.call("covey_component")
    assert all(isinstance(found, Component) and found.name == name for name, found in declared)
    assert {one.name for one in manager.candidates("covey.controllers") if one.shipped} == {
        "adapter",
        "exec",
        "filesystem",
        "host",
        "network",
        "ocf",
        "process",
        "service",
    }
