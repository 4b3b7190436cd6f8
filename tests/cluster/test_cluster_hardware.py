"""What the registry says of this machine is what the machine says of itself, through whichever node one asks."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from covey.testing import Cluster

pytestmark = pytest.mark.cluster

MOVING = 512 * 2**20
"""Bytes by which the use of a file system may differ between two looks: other tests write meanwhile."""


def resources(cluster: Cluster, through: int, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster[through].covey("-o", "json", "resource", "ls", name, "--fresh").data
    return found


def from_proc(file: str, name: str) -> list[str]:
    """Return the values of all lines `name: value` of a file of /proc."""
    lines = Path("/proc", file).read_text().splitlines()
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name]


@pytest.mark.parametrize("through", [1, 2, 3])
def test_hosts_are_this_machine(shared: Cluster, through: int) -> None:
    hosts = resources(shared, through, "Host")
    assert [host["node"] for host in hosts] == [1, 2, 3]
    memory = int(from_proc("meminfo", "MemTotal")[0].removesuffix(" kB")) * 1024
    booted = int(Path("/proc/stat").read_text().partition("btime ")[2].split()[0])
    for host in hosts:
        said = host["attributes"]
        assert said["MemoryTotal"] == memory
        assert said["CpusLogical"] == len(from_proc("cpuinfo", "processor")) == os.cpu_count()
        assert said["Kernel"] == os.uname().release
        assert said["Architecture"] == os.uname().machine
        assert said["Name"] == os.uname().nodename
        assert abs(datetime.fromisoformat(said["BootTime"]).timestamp() - booted) <= 1
        assert 0 < said["MemoryAvailable"] < memory
        assert said["Load1"] >= 0


def test_every_node_gives_the_same_answer(shared: Cluster) -> None:
    def lasting(through: int) -> list[Any]:
        wanted = ("Name", "OsName", "OsVersion", "Kernel", "MemoryTotal", "CpusLogical", "BootTime")
        return [
            [host["id"], host["node"], host["key"], [host["attributes"][name] for name in wanted]]
            for host in resources(shared, through, "Host")
        ]

    assert lasting(1) == lasting(2) == lasting(3)


@pytest.mark.parametrize("through", [1, 3])
def test_file_systems_agree_with_df(shared: Cluster, through: int) -> None:
    found = resources(shared, through, "FileSystem")
    columns = ("fstype", "size", "used", "avail", "target")
    done = subprocess.run(["df", "-B1", f"--output={','.join(columns)}"], capture_output=True, text=True, check=False)
    lines = [line.split(maxsplit=4) for line in done.stdout.splitlines()[1:]]
    df = {line[-1]: dict(zip(columns, line, strict=True)) for line in lines}
    for number in (1, 2, 3):
        said = {one["key"]["MountPoint"]: one["attributes"] for one in found if one["node"] == number}
        assert sorted(said) == sorted(df)
        for mount, values in said.items():
            assert values["Type"] == df[mount]["fstype"]
            assert values["Size"] == int(df[mount]["size"]), mount
            assert abs(values["Used"] - int(df[mount]["used"])) <= MOVING, mount
            assert abs(values["Available"] - int(df[mount]["avail"])) <= MOVING, mount


def test_adapters_are_those_of_the_system(shared: Cluster) -> None:
    found = {(one["node"], one["key"]["Name"]): one["attributes"] for one in resources(shared, 2, "Adapter")}
    there = sorted(path.name for path in Path("/sys/class/net").iterdir() if (path / "mtu").exists())
    for number in (1, 2, 3):
        assert sorted(name for node, name in found if node == number) == there
        for name in there:
            assert found[number, name]["Mtu"] == int(Path("/sys/class/net", name, "mtu").read_text())
