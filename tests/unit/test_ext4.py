"""ext4 is made smaller: by what is really there, and whenever that is cut short nothing is lost."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cryptpilot_boot.system import ext4, mkfs

BLOCKS = 6000
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file system with files at its end, which are to be moved."""
    source = tmp_path / "source"
    source.mkdir()
    chance = random.Random(1)  # noqa: S311
    (source / "0").write_bytes(chance.randbytes(20 << 20))
    for number in range(1, 30):
        (source / str(number)).write_bytes(chance.randbytes(chance.randrange(200_000)))
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(136 << 20)  # there is a second group, with a copy of the superblock
    subprocess.run(
        ["mkfs.ext4", "-q", "-O", "^extents,^64bit", "-b", "4096", "-N", "512", "-d", source, path], check=True
    )
    subprocess.run(["debugfs", "-w", "-R", "rm 0", path], check=True, capture_output=True)
    (source / "0").unlink()
    assert mkfs.check("ext4", str(path)) == ""
    return path


def content(image: Path, directory: Path) -> dict[str, bytes]:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {directory}", image], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.needs("mkfs.ext4")
def test_it_is_made_smaller_and_keeps_its_files(image: Path, tmp_path: Path) -> None:
    before = content(image, tmp_path / "out")
    assert len(before) == 29
    assert ext4.size(str(image)) == ext4.Size(34816, 4096)
    assert 1000 < ext4.least(str(image)) < BLOCKS
    ext4.shrink(str(image), BLOCKS)
    assert ext4.size(str(image)).bytes == BLOCKS * 4096
    assert mkfs.check("ext4", str(image)) == ""
    assert content(image, tmp_path / "out") == before


@pytest.mark.needs("mkfs.ext4")
def test_what_was_cut_short_is_known_and_mended(image: Path, tmp_path: Path) -> None:
    """It may be what e2fsck asks about, such as two files with one block: so resize2fs leaves it when it is killed."""
    subprocess.run(["tune2fs", "-M", "cryptpilot-shrinking", image], check=True, capture_output=True)
    shared = f"set_inode_field /2 block[0] {block_of(image, '/1')}"
    subprocess.run(["debugfs", "-w", "-R", shared, image], check=True, capture_output=True)
    before = content(image, tmp_path / "out")
    require_mended(image, before, tmp_path)


@pytest.mark.needs("mkfs.ext4")
def test_a_superblock_of_which_half_was_written_is_mended(image: Path, tmp_path: Path) -> None:
    """The checksum is in its other sector."""
    before = content(image, tmp_path / "out")
    with image.open("r+b") as file:
        file.seek(1024 + 0x88)
        file.write(b"/elsewhere")
    require_mended(image, before, tmp_path)


@pytest.mark.needs("mkfs.ext4")
def test_a_file_system_that_is_damaged_is_none_of_a_power_cut(image: Path) -> None:
    shared = f"set_inode_field /2 block[0] {block_of(image, '/1')}"
    subprocess.run(["debugfs", "-w", "-R", shared, image], check=True, capture_output=True)
    assert mkfs.check("ext4", str(image))
    assert not ext4.is_of_a_power_cut(str(image))


def require_mended(image: Path, before: dict[str, bytes], work: Path) -> None:
    """Require that it is damaged as by a power cut, and whole again, with its files, once it was mended."""
    assert mkfs.check("ext4", str(image))
    assert ext4.is_of_a_power_cut(str(image))
    ext4.mend(str(image))
    assert mkfs.check("ext4", str(image)) == ""
    assert content(image, work / "out") == before


def block_of(image: Path, path: str) -> str:
    """Return the number of the first block of a file."""
    said = subprocess.run(["debugfs", "-R", f"blocks {path}", image], check=True, capture_output=True, text=True).stdout
    return said.split()[0]


NEWER = """
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
[fs_types]
ext4 = {
    features = has_journal,extent,metadata_csum,metadata_csum_seed,64bit,extra_isize,orphan_file,casefold
}
"""
"""mke2fs.conf(5) with what e2fsprogs 1.47.2 of Debian 13 has by default, and more."""


@pytest.mark.root
@pytest.mark.needs("mkfs.ext4")
def test_a_boot_is_made_for_older_systems_whatever_this_machine_has_by_default(tmp_path: Path) -> None:
    made = {}
    (tmp_path / "mke2fs.conf").write_text(NEWER)
    for name, call in (("here", "make_boot('{}')"), ("plain", "make('ext4', '{}', integrity=False, temporary=False)")):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(1 << 30)
        script = f"from cryptpilot_boot.system import mkfs; mkfs.{call.format(path)}"
        mounted = 'mount --bind "$1" /etc/mke2fs.conf && exec "$2" -c "$3"'
        shell = ["unshare", "--mount", "sh", "-ec", mounted, "sh"]
        subprocess.run([*shell, tmp_path / "mke2fs.conf", sys.executable, script], check=True, cwd=CHECKOUT)
        shown = subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout
        made[name] = set(re.findall(r"^Filesystem features: +(.*)$", shown, re.MULTILINE)[0].split())
    # the first of which GRUB of Debian 11 cannot read, and an e2fsck before 1.47 refuses the second
    assert made["plain"] >= {"metadata_csum_seed", "orphan_file", "casefold"}
    assert made["here"] == (
        {"dir_index", "dir_nlink", "ext_attr", "extent", "extra_isize", "filetype", "flex_bg", "has_journal"}
        | {"huge_file", "large_file", "metadata_csum", "resize_inode", "sparse_super", "64bit"}
    )
