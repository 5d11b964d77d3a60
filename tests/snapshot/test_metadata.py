"""Owners, modes, attributes and times: what is set, what is not and is said so."""

import errno
import grp
import os
import pwd
import stat
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.snapshot.metadata import (
    ATTRIBUTE,
    GUARDED,
    MODE,
    NEEDS_PRIVILEGE,
    OWNER,
    SETID,
    TIMES,
    Metadata,
    Rights,
    unset_in_words,
)
from tests.snapshot.support import IS_ROOT, NOBODY, as_nobody, attribute, entry

needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


@pytest.fixture
def path(open_path: Path) -> Path:
    with as_nobody():
        (open_path / "file").write_bytes(b"")
    return open_path / "file"


def applied(path: Path, *, privileged: bool, numeric_ids: bool = True, **changes: Any) -> list[str]:
    metadata = Metadata(Rights(privileged=privileged, numeric_ids=numeric_ids))
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(metadata.apply(fd, entry(**({"uid": NOBODY, "gid": NOBODY} | changes))))
    finally:
        os.close(fd)


@needs_root
class TestOwner:
    def test_root_sets_any(self, path: Path) -> None:
        assert applied(path, privileged=True, uid=12, gid=34) == []
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (12, 34)

    def test_names_go_before_numbers_unless_asked(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        users, groups = {"anna": 1001}, {"staff": 2002}
        asked = []

        def user(name: str) -> SimpleNamespace:
            asked.append(name)
            return SimpleNamespace(pw_uid=users[name])

        monkeypatch.setattr(pwd, "getpwnam", user)
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=groups[name]))
        names: dict[str, Any] = {"user": "anna", "group": "staff", "uid": 1, "gid": 2}
        metadata = Metadata(Rights(privileged=True))
        for changes, expected in (
            (names, (1001, 2002)),
            (names | {"user": "unknown", "group": "unknown"}, (1, 2)),
            (names | {"user": "unknown", "group": ""}, (1, 2)),
            (names, (1001, 2002)),
        ):
            assert list(metadata.apply(str(path), entry(**changes))) == []
            assert (os.stat(path).st_uid, os.stat(path).st_gid) == expected
        assert asked == ["anna", "unknown"]
        assert applied(path, privileged=True, **names) == []
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (1, 2)

    def test_a_name_that_the_system_does_not_take_is_no_name(self, path: Path) -> None:
        assert applied(path, privileged=True, numeric_ids=False, user="a\0b", group="a\0b", uid=1, gid=2) == []
        assert os.stat(path).st_uid == 1

    def test_without_privilege_not_even_root_sets_another_owner(self, path: Path) -> None:
        assert applied(path, privileged=False, uid=12, gid=NOBODY) == [OWNER]
        assert os.stat(path).st_uid == NOBODY

    def test_a_user_sets_one_of_their_groups(self, path: Path) -> None:
        os.setgroups([4242])
        try:
            os.seteuid(NOBODY)
            assert applied(path, privileged=False, gid=4242) == []
            assert applied(path, privileged=False, gid=4243) == [OWNER]
        finally:
            os.seteuid(0)
            os.setgroups([0])
        assert os.stat(path).st_gid == 4242


def test_setuid_and_setgid_need_privilege(path: Path) -> None:
    with as_nobody():
        assert applied(path, privileged=False, uid=os.geteuid(), gid=os.getegid(), mode=0o7755) == [SETID]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o1755


@needs_root
def test_root_sets_them_after_the_owner(path: Path) -> None:
    assert applied(path, privileged=True, uid=1, gid=1, mode=0o6755) == []
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o6755


@needs_root
def test_what_belongs_to_another_is_left_and_said(path: Path) -> None:
    os.chown(path, 1, 1)
    os.chmod(path, 0o644)
    with as_nobody():
        gaps = applied(path, privileged=False, mode=0o600, xattrs=[attribute(b"user.x")])
    assert gaps == [OWNER, ATTRIBUTE, MODE, TIMES]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644


def test_what_was_beyond_a_user_is_told_in_one_line() -> None:
    assert unset_in_words({}) == ""
    assert unset_in_words({NEEDS_PRIVILEGE: 1, OWNER: 12, MODE: 3}) == "12 owners not set, 1 device not made: not root"


def test_times_that_no_file_has_are_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(handle: int, *, ns: tuple[int, int]) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(os, "utime", overflowing)
    assert TIMES in applied(path, privileged=False)


class TestAttributes:
    def test_those_of_the_snapshot_replace_what_is_inherited(self, path: Path) -> None:
        entries = ((1, 7, -1), (2, 7, 1000), (4, 5, -1), (0x10, 7, -1), (0x20, 5, -1))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
        os.setxattr(path, "user.old", b"old")
        try:
            os.setxattr(path, "system.posix_acl_access", acl)
        except OSError:
            pytest.skip("no ACLs on this file system")
        assert applied(path, privileged=IS_ROOT, xattrs=[attribute(b"user.new", b"new")]) == []
        assert os.listxattr(path) == ["user.new"]
        assert applied(path, privileged=IS_ROOT, xattrs=[attribute(b"system.posix_acl_access", acl)], mode=0o675) == []
        assert os.listxattr(path) == ["system.posix_acl_access"]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o675

    @needs_root
    def test_guarded_ones_need_privilege(self, path: Path) -> None:
        guarded = [attribute(b"security.x"), attribute(b"trusted.x"), attribute(b"user.x")]
        assert applied(path, privileged=False, xattrs=guarded) == [GUARDED]
        assert os.listxattr(path) == ["user.x"]
        assert applied(path, privileged=True, xattrs=guarded) == []
        assert sorted(os.listxattr(path)) == ["security.x", "trusted.x", "user.x"]
        assert applied(path, privileged=True) == []
        assert sorted(os.listxattr(path)) == ["security.x", "trusted.x"]

    def test_a_file_system_without_them_is_a_gap_only_where_there_are_some(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*values: Any) -> Any:
            raise OSError(errno.ENOTSUP, "none here")

        monkeypatch.setattr(os, "listxattr", none)
        monkeypatch.setattr(os, "setxattr", none)
        assert applied(path, privileged=IS_ROOT) == []
        assert applied(path, privileged=IS_ROOT, xattrs=[attribute(b"user.x"), attribute(b"user.y")]) == [ATTRIBUTE]

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_a_broken_disk_is_no_matter_of_rights(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        def broken(*values: Any) -> Any:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, "setxattr", broken)
        with pytest.raises(OSError, match=os.strerror(error)):
            applied(path, privileged=IS_ROOT, xattrs=[attribute(b"user.x")])


def test_a_mode_that_it_has_is_not_set_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid(), "privileged": IS_ROOT}
    os.chown(path, os.geteuid(), os.getegid())
    os.chmod(path, 0o640)
    called: list[int] = []
    real = os.chmod

    def chmod(handle: int, mode: int) -> None:
        called.append(mode)
        real(handle, mode)

    monkeypatch.setattr(os, "chmod", chmod)
    assert applied(path, mode=0o640, **me) == []
    assert called == []
    os.setxattr(path, "user.old", b"it may be an access list, of which the mode is a part")
    assert applied(path, mode=0o640, **me) == []
    assert called == [0o640]
