"""Names of users and groups become uids as the system says."""

from __future__ import annotations

import grp
import pwd

import pytest
from covey.config import roles


def user(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))


def group(name: str, gid: int, *members: str) -> grp.struct_group:
    return grp.struct_group((name, "x", gid, list(members)))


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [user("root", 0, 0), user("mary", 1000, 100), user("john", 1001, 1001), user("ops", 7, 7)]
    groups = [group("root", 0), group("staff", 100, "john", "gone"), group("empty", 5), group("ops", 8, "mary")]
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {one.pw_name: one for one in users}[name])
    monkeypatch.setattr(grp, "getgrnam", lambda name: {one.gr_name: one for one in groups}[name])
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrall", lambda: groups)


def test_a_user_a_group_and_nobody() -> None:
    assert roles.uids_of("mary") == {1000}
    assert roles.uids_of("staff") == {1000, 1001}  # mary by her own group, john as listed, the one who is gone not
    assert roles.uids_of("empty") == set()
    assert roles.uids_of("nobody-here") is None


def test_a_user_comes_before_a_group_of_that_name() -> None:
    assert roles.uids_of("ops") == {7}


def test_a_name_the_system_cannot_even_ask_for_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def embedded(_: str) -> object:
        raise ValueError("embedded null byte")

    monkeypatch.setattr(pwd, "getpwnam", embedded)
    monkeypatch.setattr(grp, "getgrnam", embedded)
    assert roles.uids_of("a\0b") is None
