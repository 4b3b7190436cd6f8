"""The key file: written once, with care, and read only when it is as it must be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq
from covey import errors
from covey.bus import security
from covey.bus.security import Keys, is_key, key_file_problem, load_keys, make_keys, require_curve, secure_client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "n1.key"
    make_keys(found)
    return found


def test_what_was_made_is_read(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "n1.key")
    assert load_keys(tmp_path / "n1.key") == made
    assert is_key(made.public)
    assert is_key(made.secret)
    assert make_keys(tmp_path / "n2.key") != made
    assert key_file_problem(tmp_path / "n1.key") is None


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_can_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_keys(tmp_path / "n1.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "n1.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(errors.KeyExists, match="exists"):
        make_keys(path)
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(errors.KeyExists):
        make_keys(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_cannot_be_kept_is_not_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.KeyFileError, match="No such file"):
        make_keys(tmp_path / "no-folder" / "n1.key")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(security.os, "fsync", full)
    with pytest.raises(errors.KeyFileError, match="No space left"):
        make_keys(tmp_path / "n1.key")
    assert list(tmp_path.iterdir()) == []


def test_the_secret_is_not_shown(path: Path) -> None:
    keys = load_keys(path)
    assert keys.secret not in repr(keys)
    assert keys.secret not in str(keys)
    path.write_text(path.read_text().replace("secret:", "secret "))
    assert keys.secret not in str(key_file_problem(path))


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(errors.KeyMissing, match="node init"):
        load_keys(tmp_path / "n1.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o700, 0o777, 0o4600, 0o1600])
def test_a_file_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(errors.KeyMode, match=f"{mode:04o}.*chmod 600"):
        load_keys(path)


def test_a_file_that_its_owner_may_only_read_is_fine(path: Path) -> None:
    path.chmod(0o400)
    assert key_file_problem(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    os.chown(path, 65534, 65534)
    with pytest.raises(errors.KeyOwner, match="65534"):
        load_keys(path)


def test_a_link_is_refused_even_to_a_good_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(errors.KeySymlink):
        load_keys(tmp_path / "link")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(errors.KeyUnreadable):
            load_keys(tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(errors.KeyUnreadable):
        load_keys(tmp_path / "file" / "n1.key")


def content(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("line", ["public", "secret"])
def test_a_file_without_one_of_its_lines_is_refused(path: Path, line: str) -> None:
    content(path, "".join(one for one in path.read_text().splitlines(keepends=True) if not one.startswith(line)))
    with pytest.raises(errors.KeyMalformed, match=line):
        load_keys(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-10],
        lambda text: text + text,
        lambda text: text + "more: things\n",
        lambda text: text.replace("secret: ", "secret: 0"),
        lambda text: text.upper(),
        lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
        lambda text: text + "#" * 10_000,
        lambda text: bytes(range(256)),
    ],
)
def test_a_file_that_was_not_written_so_is_refused(path: Path, damage: object) -> None:
    content(path, damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(errors.KeyMalformed):
        load_keys(path)


def test_a_public_key_of_another_pair_is_refused(path: Path) -> None:
    keys = load_keys(path)
    content(path, path.read_text().replace(keys.public, Keys.make().public))
    with pytest.raises(errors.KeyMismatch, match="not the one of the secret key"):
        load_keys(path)
    flipped = ("1" if keys.public[0] == "0" else "0") + keys.public[1:]
    content(path, path.read_text().replace(load_public(path), flipped))
    with pytest.raises(errors.KeyMismatch):
        load_keys(path)


def load_public(path: Path) -> str:
    return next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("public"))


def test_every_refusal_has_its_own_code_and_the_exit_code_of_a_bad_file() -> None:
    kinds = errors.KeyFileError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) == 7
    assert {kind.exit_code for kind in kinds} == {10}


def test_a_library_that_cannot_encrypt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_curve()
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
    with pytest.raises(errors.NoCurve, match=r"4\.3\.5"):
        Keys.make()
    monkeypatch.setattr(zmq, "has", lambda _: False)
    with pytest.raises(errors.NoCurve, match="without CURVE"):
        Keys.make()


@pytest.mark.parametrize("key", ["", "x" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_what_is_no_key_is_not_dialled(key: str) -> None:
    assert not is_key(key)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    with pytest.raises(errors.KeyMalformed):
        secure_client(socket, Keys.make(), key)
    socket.close(0)
    context.term()
