"""The mount table says `none` where there is no device; psutil makes an empty word of it, which `df` does not show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
from covey.controllers.filesystem.mounts import Looker, mounted
print(*(one.device for one in mounted(Looker()) if one.point == {place!r}))
"""


def in_own_mounts(place: Path, then: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command where a tmpfs without a device is mounted, which nobody else sees."""
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(place), *then], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_mount_without_a_device_is_called_what_df_calls_it(tmp_path: Path) -> None:
    shown = in_own_mounts(tmp_path, ["df", "-P", str(tmp_path)])
    assert shown.stdout.splitlines()[1].split()[0] == "none"
    seen = in_own_mounts(tmp_path, [sys.executable, "-c", LOOK.format(place=str(tmp_path))])
    assert seen.stdout.strip() == "none", seen
