"""A full disk was called a bug, with a traceback in the log; `node init` left an empty file in its own way."""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.bus import codec
from covey.bus.messages import Header, Kind
from covey.bus.service import Service
from covey.bus.serving import Serving
from covey.cli import init


@pytest.mark.parametrize(
    ("problem", "code"), [(OSError(errno.ENOSPC, "full"), "core.error"), (OSError("bug"), "core.internal")]
)
def test_what_the_machine_refuses_is_no_bug(problem: OSError, code: str, caplog: pytest.LogCaptureFixture) -> None:
    def write() -> None:
        raise problem

    async def main() -> list[errors.CoveyError]:
        said: list[errors.CoveyError] = []

        class Answers:
            def add(self, kind: Kind, destination: str, topic: str, item: bytes, number: int, cause: str) -> None:
                said.append(codec.decode_error(item))

        serving = Serving(Answers())  # type: ignore[arg-type]
        serving.services["store"] = Service("store", {"write": write})
        serving.take(Header(Kind.REQUEST, (1,), "a@1", "store", "store.write"), b"\x80")
        await serving.close()
        return said

    with caplog.at_level(logging.ERROR):
        (told,) = asyncio.run(main())
    assert told.code == code
    assert bool(caplog.records[0].exc_info) is (code == "core.internal")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_init_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Any = Path.open

    def full(path: Path, *arguments: Any, **more: Any) -> Any:
        opened(path, *arguments, **more).close()
        return opened(Path("/dev/full"), "w")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(errors.CoveyError, match="cannot be written: No space left"):
            init.write(tmp_path, name="n1", adapters=[], port=7400, state=None, curve=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "covey.yaml").unlink(missing_ok=True)
    init.write(tmp_path, name="n1", adapters=[], port=7400, state=None, curve=False)
