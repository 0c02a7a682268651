"""Who else can change the configuration, or the programs it names, is an error; see sshd(8) for StrictModes."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.config import load, trust
from tests.unit.test_config import EXEC, OTHER, SMALL, configure

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, 0, follow_symlinks=False)


def world(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def group(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, -1, NOBODY)  # root's own group is another matter
    path.chmod(path.stat().st_mode | 0o020)


def sticky(path: Path) -> None:
    path.chmod(0o1777)


WAYS = [world, group, pytest.param(give_away, marks=as_root)]


def said(directory: Path) -> tuple[list[str], list[str]]:
    """Return the names of the volumes that can be used, and what is said of the rest."""
    config = load(directory)
    for problem in config.problems:
        assert problem.hint
        assert problem.what.isprintable()
    return [one.volume for one in config.volumes], [problem.what for problem in config.problems]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_others_can_change_costs_its_volume_alone(tmp_path: Path, way: Callable[[Path], None]) -> None:
    configure(tmp_path, SMALL, OTHER)
    way(tmp_path / "volumes/v0.toml")
    names, (problem,) = said(tmp_path)
    assert names == ["w"]
    assert problem.startswith(f"{tmp_path}/volumes/v0.toml: ")
    assert "can be changed by" in problem or f"belongs to user {NOBODY}" in problem


def test_a_name_that_a_terminal_obeys_is_not_printed(tmp_path: Path) -> None:
    directory = tmp_path / "a\x1b[31m\n"
    configure(directory, SMALL)
    for path in (directory / "volumes/v0.toml", directory):
        world(path)
        assert said(directory)[0] == []


@pytest.mark.parametrize("way", WAYS)
def test_settings_that_others_can_change_are_not_used(tmp_path: Path, way: Callable[[Path], None]) -> None:
    configure(tmp_path, SMALL, settings="[boot]\ntimeout = 1\n")
    way(tmp_path / "global.toml")
    assert load(tmp_path).boot.timeout == 90
    assert said(tmp_path)[0] == ["v"]


@pytest.mark.parametrize("way", [*WAYS, sticky])
@pytest.mark.parametrize("where", ["", "volumes"], ids=["the directory", "volumes"])
def test_a_directory_that_others_can_change_costs_all_volumes(
    tmp_path: Path, where: str, way: Callable[[Path], None]
) -> None:
    """Sticky or not: whoever can make a file in it can add a volume."""
    directory = tmp_path / "etc"
    configure(directory, SMALL, OTHER)
    way(directory / where)
    names, (problem,) = said(directory)
    assert names == []
    assert problem.startswith(f"{directory / where}: ")


@pytest.mark.parametrize("way", WAYS)
def test_so_does_one_above(tmp_path: Path, way: Callable[[Path], None]) -> None:
    configure(tmp_path / "a/b/etc", SMALL)
    way(tmp_path / "a")
    assert said(tmp_path / "a/b/etc") == ([], [f"{tmp_path}/a/b/etc: {_step(tmp_path / 'a')}"])


def _step(path: Path) -> str:
    status = path.stat()
    if status.st_uid == NOBODY:
        return f"{path}, on the way to it, belongs to user {NOBODY}, who can change it"
    who = "every user" if status.st_mode & 0o002 else f"group {status.st_gid}"
    return f"{path}, on the way to it, can be changed by {who} (mode {status.st_mode & 0o7777:04o})"


def test_a_shared_directory_above_is_accepted_where_nobody_can_take_the_files_of_others_away(tmp_path: Path) -> None:
    """As in /tmp, where this test itself is."""
    configure(tmp_path / "a/etc", SMALL)
    sticky(tmp_path / "a")
    assert said(tmp_path / "a/etc") == (["v"], [])


@pytest.mark.parametrize("way", WAYS)
def test_what_a_link_leads_to_counts_and_what_is_on_the_way(tmp_path: Path, way: Callable[[Path], None]) -> None:
    configure(tmp_path / "etc", SMALL)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/w.toml").write_text(OTHER)
    (tmp_path / "etc/volumes/w.toml").symlink_to("../../home/w.toml")
    assert said(tmp_path / "etc") == (["v", "w"], [])
    way(tmp_path / "home")
    names, (problem,) = said(tmp_path / "etc")
    assert names == ["v"]
    assert problem.startswith(f"{tmp_path}/etc/volumes/w.toml: {tmp_path}/home, on the way to it,")


@as_root
def test_a_link_in_a_shared_directory_is_its_owners(tmp_path: Path) -> None:
    configure(tmp_path / "etc", SMALL)
    shared = tmp_path / "shared"
    shared.mkdir()
    sticky(shared)
    (shared / "link").symlink_to(tmp_path / "etc")
    assert said(shared / "link") == (["v"], [])
    give_away(shared / "link")
    names, (problem,) = said(shared / "link")
    assert (names, problem) == ([], f"{shared}/link: belongs to user {NOBODY}, who can change it")


@as_root
def test_in_a_directory_of_ones_own_it_does_not_matter_whose_a_link_is(tmp_path: Path) -> None:
    configure(tmp_path / "etc", SMALL)
    (tmp_path / "link").symlink_to("etc")
    give_away(tmp_path / "link")
    assert said(tmp_path / "link") == (["v"], [])


def test_links_that_lead_in_a_circle_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        trust.require(tmp_path / "a")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["bin", "lib", "lib/get-key"])
def test_a_program_that_others_can_change_costs_its_volume(
    tmp_path: Path, where: str, way: Callable[[Path], None]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/get-key").write_text("#!/bin/sh\n")
    (tmp_path / "lib/get-key").chmod(0o755)
    (tmp_path / "bin/get-key").symlink_to("../lib/get-key")
    configure(tmp_path / "etc", OTHER, EXEC.replace("get-key", f"{tmp_path}/bin/get-key"))
    assert said(tmp_path / "etc") == (["w", "v"], [])
    way(tmp_path / where)
    names, (problem,) = said(tmp_path / "etc")
    assert names == ["w"]
    assert problem.startswith(f"{tmp_path}/etc/volumes/v1.toml: the program {tmp_path}/bin/get-key: ")


PARTS = ["", "volumes", "volumes/v0.toml", "global.toml"]


def of_roots_group(directory: Path, where: str) -> Path:
    """Make a configuration, a part of which root's group can write."""
    configure(directory, SMALL, settings="[boot]\ntimeout = 1\n")
    path = directory / where
    path.chmod(path.stat().st_mode | 0o020)
    assert path.stat().st_gid == 0
    return path


@as_root
@pytest.mark.parametrize("where", PARTS)
def test_roots_own_group_is_root(tmp_path: Path, where: str) -> None:
    """As umask 002 leaves files."""
    of_roots_group(tmp_path / "etc", where)
    assert said(tmp_path / "etc") == (["v"], [])


@as_root
def test_in_a_directory_of_roots_group_it_does_not_matter_whose_a_link_is(tmp_path: Path) -> None:
    configure(tmp_path / "etc", SMALL)
    (tmp_path / "link").symlink_to("etc")
    give_away(tmp_path / "link")
    tmp_path.chmod(0o775)
    assert said(tmp_path / "link") == (["v"], [])


@as_root
@pytest.mark.parametrize("where", PARTS)
def test_a_user_that_an_acl_lets_write_shows_in_the_mode(tmp_path: Path, where: str) -> None:
    """The bits of the group are the mask of the ACL; see acl(5)."""
    path = of_roots_group(tmp_path / "etc", where)
    # linux/posix_acl_xattr.h: tag, permissions, id; the owner, a user, the group, the mask, others
    entries = [(1, 7, -1), (2, 7, NOBODY), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs on this file system: {error}")
    (problem,) = said(tmp_path / "etc")[1]
    assert problem == f"{path}: can be changed through an ACL (mode 0775)"


@as_root
@pytest.mark.parametrize("where", PARTS)
def test_where_acls_are_not_shown_there_may_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """As on NFSv4, whose modes show the mask of an ACL that the server keeps for itself."""
    path = of_roots_group(tmp_path / "etc", where)

    def unsupported(*_: object, **__: object) -> bytes:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "getxattr", unsupported)
    (problem,) = said(tmp_path / "etc")[1]
    assert problem.startswith(f"{path}: can be changed through an ACL (mode ")


@pytest.mark.parametrize("where", ["", "volumes", "identities"])
@pytest.mark.parametrize("by", ["a relative path", "a path with dots", "a link", "a link to a part"])
def test_a_shared_directory_of_files_is_refused_by_whatever_path_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, by: str
) -> None:
    configure(tmp_path / "etc", SMALL)
    (tmp_path / "etc/identities").mkdir()
    sticky(tmp_path / "etc" / where)
    directory = tmp_path / "etc"
    if by == "a relative path":
        monkeypatch.chdir(tmp_path)
        directory = Path("etc")
    elif by == "a path with dots":
        directory = tmp_path / "etc/volumes/.."
    elif by == "a link" or not where:
        directory = tmp_path / "link"
        directory.symlink_to("etc")
    else:
        (tmp_path / "etc" / where).rename(tmp_path / "elsewhere")
        (tmp_path / "etc" / where).symlink_to("../elsewhere")
    names, (problem,) = said(directory)
    assert names == []
    assert problem.endswith("can be changed by every user (mode 1777)")


def test_a_path_that_leads_nowhere_is_left_to_the_one_who_reads_it(tmp_path: Path) -> None:
    trust.require(tmp_path / "nothing/at/all")
    (tmp_path / "file").touch()
    trust.require(tmp_path / "file/inside")


@as_root
def test_one_who_is_not_root_may_have_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, SMALL)
    give_away(tmp_path / "volumes/v0.toml")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert said(tmp_path) == (["v"], [])
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY - 1)
    assert said(tmp_path)[0] == []


def test_in_an_initrd_there_is_nobody_else(tmp_path: Path) -> None:
    configure(tmp_path, SMALL)
    world(tmp_path / "volumes")
    assert len(load(tmp_path, others=False).volumes) == 1


@pytest.mark.parametrize("command", [["config", "check"], ["initrd", "plan"], ["show"], ["init", "v", "--yes"]])
def test_commands_say_so_and_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]) -> None:
    configure(tmp_path, SMALL)
    world(tmp_path / "volumes")
    assert cli.main(["-c", str(tmp_path), *command]) == cli.EXIT_USAGE
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f"cryptpilot: error: {tmp_path}/volumes: can be changed by every user (mode 0757)"
    assert err[1].endswith(f"chmod go-w {tmp_path}/volumes")


@pytest.mark.parametrize("way", WAYS)
def test_what_a_volume_is_bound_to_is_nobody_elses_to_change(tmp_path: Path, way: Callable[[Path], None]) -> None:
    configure(tmp_path, EXEC, OTHER)
    identities = tmp_path / "identities"
    identities.mkdir()
    (identities / "v.toml").write_text(f'volume_keys = ["{64 * "a"}"]\n')
    assert said(tmp_path) == (["v", "w"], [])
    way(identities / "v.toml")
    config = load(tmp_path)
    (problem,) = config.problems
    assert [one.volume for one in config.volumes] == ["w"]
    assert problem.what.startswith(f"{identities}/v.toml: ")
    assert problem.hint.startswith("see what it says, then: ch"), "it is not for the command to say that it is right"
    assert len(load(tmp_path, others=False).volumes) == 2
    way(identities)
    assert said(tmp_path)[0] == []


def test_reading_is_another_matter(tmp_path: Path) -> None:
    configure(tmp_path, SMALL)
    for path in (tmp_path, tmp_path / "volumes", tmp_path / "volumes/v0.toml"):
        path.chmod(0o755)
    assert said(tmp_path) == (["v"], [])
