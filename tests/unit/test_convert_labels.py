"""SELinux in an image: what is put into it is found, all of it and nothing else, and its own setfiles labels it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.convert import labels, plan
from cryptpilot_boot.system import relabel
from cryptpilot_boot.system.foreign_root import Root
from tests.unit.test_convert_plan import CONTEXTS, FOUND, VOLUME, _system

if TYPE_CHECKING:
    from collections.abc import Sequence

DEBIAN = """\
# SELINUX= can take one of these three values:
# disabled - No SELinux policy is loaded.
SELINUX=permissive
SELINUXTYPE=default
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("SELINUX=disabled\n", ""),
        ("SELINUX=Disabled \nSELINUXTYPE=targeted\n", ""),
        ("#SELINUX=enforcing\n", ""),
        ("SELINUX=enforcing\n", CONTEXTS),
        (" SELINUX=enforcing\r\nSELINUXTYPE=mls\n", CONTEXTS.replace("targeted", "mls")),
        (DEBIAN, CONTEXTS.replace("targeted", "default")),
    ],
)
def test_a_policy_says_what_files_are_labelled_by(text: str, path: str) -> None:
    assert labels.contexts(text) == path


def test_an_image_with_selinux_is_labelled_and_one_without_is_not() -> None:
    found = _system(selinux="SELINUX=enforcing", contexts=CONTEXTS)(FOUND)
    for one, contexts in ((found, CONTEXTS), (FOUND, "")):
        assert plan.make(one, VOLUME, plan.roles(one.table, one.contents)).contexts == contexts


@pytest.fixture
def since(tmp_path: Path) -> float:
    """Return when what is in a directory was there: files and directories that are old, one of them deep."""
    for name in ("etc/kept", "etc/old", "usr/lib/one/two/old", "empty/in"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    (tmp_path / "empty/in/file").unlink()
    (tmp_path / "link").symlink_to("nowhere")
    now = time.time() + 0.02  # a file system's clock goes by ticks of the kernel's
    time.sleep(0.04)
    return now


def changed(top: Path, since: float) -> list[str]:
    paths, mounts = relabel.changed(top, since)
    assert mounts == []
    return [str(Path(path).relative_to(top)) for path in paths]


def test_what_is_old_is_left_alone(tmp_path: Path, since: float) -> None:
    assert changed(tmp_path, since) == []


def test_files_and_directories_that_are_new_are_found_each_once(tmp_path: Path, since: float) -> None:
    """A directory that something was put into is not new where it holds what is old; that is left alone."""
    (tmp_path / "etc/new").write_text("")
    (tmp_path / "etc/old/file").unlink()
    (tmp_path / "etc/old/file").write_text("rewritten")
    (tmp_path / "etc/old/other").mkdir()
    (tmp_path / "usr/lib/one/two/new/deep").mkdir(parents=True)
    (tmp_path / "usr/lib/one/two/new/deep/file").write_text("")
    (tmp_path / "usr/lib/one/link").symlink_to("/etc")
    (tmp_path / "line\nbreak").write_text("")
    (tmp_path / "usr/lib/one/two/old/file").chmod(0o600)
    (tmp_path / "etc/kept/new").write_text("")
    assert changed(tmp_path, since) == [
        "etc/kept/new",
        *("etc/new", "etc/old", "line\nbreak", "usr/lib/one/link", "usr/lib/one/two/new", "usr/lib/one/two/old/file"),
    ]


def test_a_file_system_that_is_new_is_new_from_its_root_on(tmp_path: Path, since: float) -> None:
    top = tmp_path / "boot"
    (top / "grub").mkdir(parents=True)
    (top / "grub/grub.cfg").write_text("")
    assert changed(top, since) == ["."]


def test_a_deep_directory_is_no_trouble(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    top = tmp_path / "a"
    for _ in range(1500):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = relabel.changed(top, 0)[0]
    subprocess.run(["rm", "-r", top], check=True)  # Python's own way of doing it has its limits
    assert found == [str(top)]


def test_setfiles_is_given_what_is_new_and_kept_out_of_what_is_mounted(
    tmp_path: Path, since: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Sequence[str], bytes]] = []

    def run(root: Root, argv: Sequence[str]) -> str:
        ran.append((argv, (root.path / "run/cryptpilot-labels").read_bytes()))
        return ""

    monkeypatch.setattr(Root, "run", run)
    root = Root(tmp_path)
    relabel.label(root, "/usr", since, CONTEXTS)
    assert ran == []
    (tmp_path / "run").mkdir()
    (tmp_path / "usr/line\nbreak").write_text("")
    (tmp_path / "usr/new").write_text("")
    real = relabel.changed
    monkeypatch.setattr(relabel, "changed", lambda *given: (real(*given)[0], [str(tmp_path / "usr/mounted")]))
    relabel.label(root, "/usr", since, CONTEXTS)
    argv = ["setfiles", "-e", "/usr/mounted", "-0", "-f", "/run/cryptpilot-labels", CONTEXTS]
    assert ran == [(argv, b"/usr/line\nbreak\0/usr/new\0")]
    assert list((tmp_path / "run").iterdir()) == []
