"""The shipped controllers against what the system itself says: /proc, psutil, df."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from covey.controllers import host as host_module
from covey.controllers.adapter import Adapter
from covey.controllers.contract import Controller, Resource, Retry
from covey.controllers.filesystem import FileSystem, mounts
from covey.controllers.filesystem.mounts import Looker, Mount, Usage, mounted, prefer, share
from covey.controllers.host import Host
from covey.errors import ResourceNotFound
from covey.testing import check_controller


@pytest.mark.parametrize("controller", [Host, Adapter, FileSystem])
def test_each_keeps_its_description(controller: type[Controller]) -> None:
    assert check_controller(controller)


# --- host ---------------------------------------------------------------------------------------------------


def proc(path: str, name: str) -> list[str]:
    """The words behind a name at the beginning of a line of a file in /proc."""
    lines = [line.split() for line in Path("/proc", path).read_text().splitlines()]
    return next(words[1:] for words in lines if words and words[0].rstrip(":") == name)


def test_host_is_this_machine() -> None:
    (one,) = check_controller(Host)
    got = one["attributes"]
    assert one["key"] == {"Name": socket.gethostname()}
    assert got["Kernel"] == os.uname().release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert got["Architecture"] == platform.machine()
    assert got["CpusLogical"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert got["CpusPhysical"] is None or 1 <= got["CpusPhysical"] <= got["CpusLogical"]
    assert got["MemoryTotal"] == int(proc("meminfo", "MemTotal")[0]) * 1024
    assert got["SwapTotal"] == int(proc("meminfo", "SwapTotal")[0]) * 1024
    assert datetime.fromisoformat(got["BootTime"]).timestamp() == int(proc("stat", "btime")[0])
    assert got["OsName"] and isinstance(got["OsVersion"], str)


def test_host_figures_of_the_moment() -> None:
    (one,) = check_controller(Host)
    got = one["attributes"]
    assert got["MemoryAvailable"] == pytest.approx(int(proc("meminfo", "MemAvailable")[0]) * 1024, rel=0.2)
    assert got["MemoryUsed"] + got["MemoryAvailable"] == got["MemoryTotal"]
    loads = [float(word) for word in Path("/proc/loadavg").read_text().split()[:3]]
    assert [got["Load1"], got["Load5"], got["Load15"]] == pytest.approx(loads, abs=2)
    assert got["Uptime"] == pytest.approx(float(Path("/proc/uptime").read_text().split()[0]), abs=3)
    assert got["Processes"] == pytest.approx(len(psutil.pids()), abs=100)
    assert got["CpuPercent"] is None, "there is no span to measure over yet"


def test_host_busy_share_is_that_since_the_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    times = psutil.cpu_times()._replace(**dict.fromkeys(psutil.cpu_times()._fields, 0.0))
    looks = [times, times._replace(user=30.0, idle=50.0, iowait=20.0, guest=10.0)]
    now = iter([10.0, 10.1, 20.0, 20.2])
    monkeypatch.setattr(host_module.psutil, "cpu_times", lambda: looks.pop(0))
    monkeypatch.setattr(host_module.time, "monotonic", lambda: next(now))
    host = Host()
    assert [host._busy() for _ in range(4)] == [None, None, 30.0, 30.0]


def test_a_system_without_a_release_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(host_module.platform, "freedesktop_os_release", missing)
    found = next(Host().discover())
    assert found.attributes["OsName"] == platform.system()


# --- adapter ------------------------------------------------------------------------------------------------


def test_adapters_are_those_of_the_system() -> None:
    found = {one["key"]["Name"]: one["attributes"] for one in check_controller(Adapter)}
    assert set(found) == {name for _, name in socket.if_nameindex()}
    for name, got in found.items():
        folder = Path("/sys/class/net", name)
        assert got["Mtu"] == int((folder / "mtu").read_text())
        assert got["Mac"] == (folder / "address").read_text().strip()
        assert got["Loopback"] == (int((folder / "flags").read_text(), 16) & 8 != 0)
        assert got["BytesIn"] <= int((folder / "statistics/rx_bytes").read_text())
        assert got["ErrorsOut"] <= int((folder / "statistics/tx_errors").read_text())


def test_the_loopback_adapter() -> None:
    (got,) = [one["attributes"] for one in check_controller(Adapter) if one["key"] == {"Name": "lo"}]
    assert "127.0.0.1/8" in got["Addresses"]
    assert got["Loopback"] and got["Up"] and got["Speed"] is None


def address(family: int, text: str, mask: str | None) -> Any:
    return SimpleNamespace(family=family, address=text, netmask=mask)


def test_addresses_have_their_prefix_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    on_it = [
        address(socket.AF_INET6, "fe80::1%eth0", "ffff:ffff:ffff:ffff::"),
        address(socket.AF_INET, "10.0.0.2", "255.255.254.0"),
        address(socket.AF_INET, "9.9.9.9", None),
        address(psutil.AF_LINK, "02:00:00:00:00:01", None),
    ]
    stats = SimpleNamespace(isup=True, speed=2500, mtu=1500, flags="up,broadcast")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": on_it})
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {"eth0": stats, "tun0": stats})
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: {})
    eth0, tun0 = Adapter().discover()
    assert eth0.attributes["Addresses"] == ["9.9.9.9/32", "10.0.0.2/23", "fe80::1/64"]
    assert eth0.attributes["Mac"] == "02:00:00:00:00:01"
    assert (tun0.attributes["Addresses"], tun0.attributes["Mac"]) == ([], None)
    assert Adapter().read(Resource("Adapter", {"Name": "eth0"}, "x")) == {"Up": True, "Speed": 2_500_000_000}


def test_an_adapter_that_is_gone() -> None:
    with pytest.raises(ResourceNotFound, match="no network interface gone0"):
        Adapter().read(Resource("Adapter", {"Name": "gone0"}, "x"))


# --- filesystem ---------------------------------------------------------------------------------------------


def df(*options: str) -> dict[str, list[str]]:
    """What df prints, by mount point."""
    done = subprocess.run(
        ["df", "-P", *options], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    rows = [line.split(None, 5) for line in done.stdout.splitlines()[1:]]
    return {row[5]: row[:5] for row in rows}


def test_file_systems_are_those_of_df() -> None:
    for _ in range(20):  # until nobody mounted anything meanwhile
        before = set(df())
        found = {one["key"]["MountPoint"]: one["attributes"] for one in check_controller(FileSystem)}
        shown = df("-B1")
        if set(shown) == before:
            break
    assert set(found) == set(shown)
    for point, (device, size, used, available, percent) in shown.items():
        got = found[point]
        assert (got["Device"], got["Size"]) == (device, int(size))
        assert got["Used"] == pytest.approx(int(used), rel=0.05, abs=2**26)
        assert got["Available"] == pytest.approx(int(available), rel=0.05, abs=2**26)
        assert got["PercentUsed"] == pytest.approx(int(percent.rstrip("%")), abs=1)
    for point, (_, inodes, used, _, percent) in df("-i").items():
        assert found[point]["InodesTotal"] == int(inodes)
        assert found[point]["InodesUsed"] == pytest.approx(int(used), rel=0.05, abs=2000)
        assert percent == "-" or found[point]["InodesPercentUsed"] == pytest.approx(int(percent[:-1]), abs=1)


def test_types_and_flags_are_those_of_the_mount_table() -> None:
    table = {one.mountpoint: one for one in psutil.disk_partitions(all=True)}
    for one in check_controller(FileSystem):
        row = table[one["key"]["MountPoint"]]
        assert one["attributes"]["Type"] == row.fstype
        assert one["attributes"]["ReadOnly"] == ("ro" in row.opts.split(","))


@pytest.mark.parametrize(
    ("part", "whole", "percent"), [(0, 10, 0), (1, 1000, 1), (99, 100, 99), (991, 1000, 100), (1, 1, 100), (0, 0, None)]
)
def test_the_percentage_is_rounded_up_like_that_of_df(part: int, whole: int, percent: int | None) -> None:
    assert share(part, whole) == percent


def test_what_is_reserved_for_root_counts_as_neither_used_nor_free() -> None:
    found = os.statvfs_result((4096, 4096, 1000, 200, 100, 50, 20, 20, 0, 255))
    usage = mounts.usage_of(found)
    assert usage == Usage(size=4096000, used=800 * 4096, available=100 * 4096, inodes=50, inodes_used=30)
    assert (usage.percent, usage.inodes_percent) == (89, 60)


def points(*found: Mount) -> list[str]:
    return [one.point for one in prefer(found)]


def test_of_several_mounts_of_one_device_the_one_that_df_shows() -> None:
    assert points(Mount("/dev/a", "/", "ext4", number=1), Mount("/dev/b", "/b", "ext4", number=2)) == ["/", "/b"]
    whole = Mount("/dev/a", "/mnt/whole", "ext4", number=1)
    assert points(whole, Mount("/dev/a", "/bind", "ext4", root="/sub", number=1)) == ["/mnt/whole"]
    assert points(whole, Mount("/dev/a", "/bind", "ext4", number=1)) == ["/bind"]
    assert points(Mount("none", "/x", "ext4", number=1), whole) == ["/mnt/whole"]
    (over,) = prefer([Mount("old", "/x", "tmpfs", number=1), Mount("new", "/x", "tmpfs", number=1)])
    assert over.device == "new"
    (over,) = prefer([Mount("/dev/a", "/x", "ext4", number=1), Mount("/dev/b", "/x", "ext4", number=2)])
    assert over.device == "/dev/b"
    assert points(Mount("s:/a", "/a", "nfs"), Mount("s:/b", "/b", "nfs")) == ["/a", "/b"], "silent ones are all kept"


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The server of what is mounted on `/` does not answer until the event is set."""
    alive, real = threading.Event(), os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        if path == "/":
            alive.wait()
        return real(path)

    rows = [("server:/x", "/", "nfs4"), ("auto", "/auto", "autofs"), ("gone", "/no/such/place", "ext4")]
    table = [SimpleNamespace(device=device, mountpoint=point, fstype=kind, opts="rw") for device, point, kind in rows]
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: table)
    yield alive
    alive.set()


def test_a_dead_server_holds_nobody(dead_server: threading.Event) -> None:
    looker = Looker(patience=0.05)
    for _ in range(2):
        (one,) = mounted(looker)
        assert (one.point, one.device, one.usage) == ("/", "server:/x", None)
    assert len(looker._asking) == 1, "nobody asks again who has not answered"
    controller = FileSystem()
    controller._looker = looker
    (found,) = controller.discover()
    assert found.attributes["Size"] is None
    resource = Resource("FileSystem", {"MountPoint": "/"}, "x")
    with pytest.raises(Retry, match="does not answer"):
        controller.read(resource)
    dead_server.set()
    looker._patience = 30.0
    deadline = time.monotonic() + 30
    while looker._asking and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert controller.read(resource)["Used"] > 0


def test_a_mount_that_is_gone() -> None:
    with pytest.raises(ResourceNotFound, match="nothing is mounted on /no/such/place"):
        FileSystem().read(Resource("FileSystem", {"MountPoint": "/no/such/place"}, "x"))
