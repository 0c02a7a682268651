"""What systemd itself makes of fstab, beside what we take it to make of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cryptpilot_boot.boot.units import units
from cryptpilot_boot.config import Otp, Volume
from tests.lab.tree import PYTHONS, SHARE, in_chroot, root_tree

GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
OUT = f"{SHARE}/out"
LINES = """\
# /dev/mapper/comment /comment ext4 defaults
/dev/mapper/two /two
/dev/mapper/three /three ext4
/dev/mapper/four /four/ ext4 noatime # as one likes
 /dev/mapper/five\t/my\\040own\\134five ext4 defaults 0 2
/dev/mapper/bytes /b\\303y ext4
/dev/mapper/via /srv/link/via ext4
/dev/mapper/lost /srv/nowhere/lost ext4
/dev/mapper/swap0 none swap
/dev/mapper/net /net ext4 _netdev
host:/x /net/nfs nfs
host:/y /two/sshfs fuse.sshfs
/two/dir /bound none bind
/dev/mapper/one
"""
OTHERS = "/dev/mapper/not-ours /other ext4\n/dev/mapper/nofail /nofail ext4 ro,nofail\n"


def volumes() -> list[Volume]:
    names = ("two", "three", "four", "five", "bytes", "via", "lost", "swap0", "net", "one", "nofail")
    return [Volume(name, f"/dev/{name}", Otp(), Path("/x.toml"), auto_open=True) for name in names]


@pytest.mark.parametrize("release", PYTHONS)
def test_we_name_what_systemd_requires_as_systemd_does(lab: None, release: str, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("is/not/there")
    (tmp_path / "fstab").write_text(LINES + OTHERS)
    (tmp_path / "out").mkdir()
    # systemd takes a machine whose /sys cannot be written to for a container, and ignores its disks
    command = f"umount /sys && SYSTEMD_FSTAB={SHARE}/fstab SYSTEMD_PROC_CMDLINE= {GENERATOR} {' '.join(3 * [OUT])}"
    in_chroot(root_tree(release), ["sh", "-c", command], share=tmp_path)

    def resolve(path: str) -> str:
        """Do as in the tree, which sees the directory of this test at SHARE."""
        return os.path.realpath(path.replace(SHARE, str(tmp_path), 1)).replace(str(tmp_path), SHARE, 1)

    required = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*.target.requires/*")}
    made = units(volumes(), LINES + OTHERS, [], 90, resolve=resolve)
    assert required - set(made.masks) == {"local-fs.target.requires/other.mount"}, "and no other machine's trouble"
    # nor does 257 make swap where processes have a namespace of their own, as here
    assert set(made.masks) - required <= {"swap.target.requires/dev-mapper-swap0.swap"}
    wanted = {name.replace(".requires/", ".wants/") for name in made.masks}
    assert wanted <= set(made.links)
