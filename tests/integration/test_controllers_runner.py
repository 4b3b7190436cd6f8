"""Controllers loaded from installed packages and served on a real bus, the bad ones beside the good."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from covey.bus.broker_service import BrokerSettings, run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.controllers import runner
from covey.controllers.runner import run_controllers, serving, shipped
from covey.errors import PluginError, Timeout
from covey.plugins.manager import PluginManager

EXAMPLE = Path(__file__).parents[2] / "examples" / "controller-loadavg"

YAML = """
covey: 1
controller: {name}
classes:
  {cls}:
    version: 1
    key: [Index]
    attributes:
      Index: {{type: uint32, kind: persistent}}
"""

CODE = """
import asyncio, time
from covey import Controller, Found

class Made(Controller):
    description = "made.yaml"
    {method}
"""

METHODS = {
    "good": "async def discover(self): yield Found('Good', key={'Index': 1})",
    "raises": "def discover(self): raise RuntimeError('no driver')",
    "hangs": "async def discover(self): time.sleep(3600)",
    "unborn": "discover = lambda self: []\n    def __init__(self): raise OSError('no device')",
    "lazy": "pass",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path with one installed package for each of METHODS, and one that does not import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, method in METHODS.items():
        install(tmp_path, name, CODE.format(method=method))
    install(tmp_path, "broken", "import libfoo")
    importlib.invalidate_caches()
    yield tmp_path
    for module in [one for one in sys.modules if one.startswith("made_")]:
        del sys.modules[module]


def install(site: Path, name: str, code: str) -> None:
    package = site / f"made_{name}"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "made.yaml").write_text(YAML.format(name=name, cls=name.capitalize()))
    info = site / f"made_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[covey.controllers]\n{name} = made_{name}:Made\n")


def on_a_bus(work: Callable[[Client, Client], Any]) -> Any:
    """Run a coroutine function with a broker and two parties: a component and another one."""

    async def main() -> Any:
        with tempfile.TemporaryDirectory(prefix="cv") as folder:
            async with (
                run_broker(BrokerSettings(f"{folder}/run")) as (broker, _),
                connect(endpoint=broker.endpoint, name="controllers", component=True) as bus,
                connect(endpoint=broker.endpoint, name="resources", component=True) as asking,
            ):
                return await work(bus, asking)

    return asyncio.run(main())


def test_each_bad_one_is_served_with_its_reason_and_the_good_ones_work(site: Path) -> None:
    async def work(bus: Client, asking: Client) -> None:
        plugins = PluginManager()
        async with serving(bus, plugins, [*METHODS, "broken", "nowhere"]) as served:
            assert [one.name for one in served] == [*METHODS, "broken", "nowhere"]
            answer = await asking.call("controller.good", "discover")
            assert [one["key"] for one in answer["found"]] == [{"Index": 1}]
            with pytest.raises(PluginError, match=r"discover: RuntimeError: no driver \(made_raises/__init__.py:7\)"):
                await asking.call("controller.raises", "discover")
            with pytest.raises(Timeout, match=r"discover: no answer within .* s \(at made_hangs/__init__.py:7\)"):
                await asking.call("controller.hangs", "discover", timeout=1.0)
            reasons = {}
            for name in (*METHODS, "broken", "nowhere"):
                status = await asking.call(f"controller.{name}", "status")
                reasons[name] = status["reason"]
                assert status["state"] == ("failed" if status["reason"] else "running")
            assert reasons["good"] == ""
            assert reasons["raises"] == "discover: RuntimeError: no driver (made_raises/__init__.py:7)"
            assert reasons["hangs"].startswith("discover: no answer within 0.")
            assert reasons["unborn"] == "make: no device (made_unborn/__init__.py:8)"
            assert "it has no method discover" in reasons["lazy"]
            assert reasons["broken"] == "import: No module named 'libfoo' (made_broken/__init__.py:1)"
            assert "there is no plugin of group covey.controllers: 'nowhere'" in reasons["nowhere"]
            why = (await asking.call("controller.broken", "status"))["why"]
            assert "found by entry point 'broken' = made_broken:Made" in why and "line 1, in <module>" in why
        states = {one.name: one.state for one in plugins.status("covey.controllers")}
        assert states["good"] == "running" and states["broken"] == states["unborn"] == states["lazy"] == "failed"

    on_a_bus(work)


def test_an_import_that_hangs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOAD_DEADLINE", 0.5)
    install(site, "slow", "import threading\n\nthreading.Event().wait()\n")
    importlib.invalidate_caches()

    async def work(bus: Client, asking: Client) -> None:
        plugins = PluginManager()
        async with serving(bus, plugins, ["slow", "good"]):
            status = await asking.call("controller.slow", "status")
            assert status["reason"] == "load: no answer within 0.5 s (at made_slow/__init__.py:3)"
            assert (await asking.call("controller.good", "status"))["state"] == "running"
        assert next(one for one in plugins.status() if one.name == "slow").state == "failed"

    on_a_bus(work)


def context(bus: Client, **controllers: Any) -> ComponentContext:
    local = Local("/s", "/s/c", "c", "lab", 1, "n1", "id", "boot", (1,), settings={"controllers": controllers})
    return ComponentContext("controllers", bus, local)


def test_the_shipped_ones_share_a_process_and_can_be_switched_off() -> None:
    async def work(bus: Client, asking: Client) -> None:
        plugins = PluginManager(safe=True)
        fixed = ["adapter", "filesystem", "host", "network", "process", "service"]
        assert shipped(plugins, {}) == fixed, "exec and ocf have nothing to do"
        assert shipped(
            plugins, {"exec": {"options": {"files": ["x"]}}, "host": {"enabled": False}, "ocf": None}
        ) == sorted({*fixed, "exec"} - {"host"})
        task = asyncio.get_running_loop().create_task(
            run_controllers(context(bus, filesystem={"enabled": False}, host=None), plugins)
        )
        await asking.wait_for_service("controller.host")
        answer = await asking.call("controller.host", "discover")
        assert [one["class"] for one in answer["found"]] == ["Host"] and answer["findings"] == []
        read = await asking.call("controller.host", "read", cls="Host", key=answer["found"][0]["key"])
        assert read["attributes"]["Uptime"] > 0 and read["findings"] == []
        classes = [one["name"] for one in await asking.call("controller.adapter", "classes")]
        assert classes == ["Adapter"]
        with pytest.raises(Exception, match=r"controller\.filesystem"):
            await asking.call("controller.filesystem", "classes", timeout=1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on_a_bus(work)


def test_each_has_its_options_and_says_what_is_wrong_with_them() -> None:
    given = {
        "process": {"options": {"watch": {"nobody": {"name": "nobody-is-called-so"}}}},
        "adapter": {"options": {"a": 1}},
        "ocf": {"options": {"agents": {"one": {"agnt": "x"}}}},
        "exec": {"enabled": False},
    }

    async def work(bus: Client, asking: Client) -> None:
        plugins, local = PluginManager(safe=True), context(bus, **given).local
        async with serving(bus, plugins, ["process", "adapter", "ocf"], None, local):
            (found,) = (await asking.call("controller.process", "discover"))["found"]
            assert found["key"] == {"Name": "nobody"}
            read = await asking.call("controller.process", "read", cls="Process", key=found["key"])
            assert (read["attributes"]["Count"], read["findings"]) == (0, [])
            reasons = {
                name: (await asking.call(f"controller.{name}", "status"))["reason"] for name in ("adapter", "ocf")
            }
            assert reasons["adapter"] == "Adapter has no options, and this node's YAML gives it some"
            assert "unknown key 'agnt'" in reasons["ocf"] and "did you mean 'agent'?" in reasons["ocf"]
        async with serving(bus, plugins, ["exec"], None, local):
            assert await asking.call("controller.exec", "classes") == [], "without a file it has no class"
            assert (await asking.call("controller.exec", "discover"))["found"] == []

    on_a_bus(work)


def test_the_example_package_installs_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-build-isolation", "--no-deps", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(target))

    async def work(bus: Client, asking: Client) -> None:
        plugins = PluginManager()
        (one,) = [each for each in plugins.status() if each.name == "loadavg"]
        assert (one.package, one.version, one.state) == ("covey-loadavg", "0.1.0", "found")
        async with serving(bus, plugins, ["loadavg"]):
            answer = await asking.call("controller.loadavg", "discover")
            assert [found["key"] for found in answer["found"]] == [{"Minutes": 1}, {"Minutes": 5}, {"Minutes": 15}]
            read = await asking.call("controller.loadavg", "read", cls="LoadAverage", key={"Minutes": 1})
            assert set(read["attributes"]) == {"Load", "LoadPerProcessor"} and read["findings"] == []

    try:
        on_a_bus(work)
    finally:
        sys.modules.pop("covey_loadavg", None)


def test_a_third_party_one_alone(site: Path) -> None:
    async def work(bus: Client, asking: Client) -> None:
        task = asyncio.get_running_loop().create_task(run_controllers(context(bus), PluginManager(), "good"))
        await asking.wait_for_service("controller.good")
        assert len((await asking.call("controller.good", "discover"))["found"]) == 1
        assert "made_broken" not in sys.modules
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on_a_bus(work)
