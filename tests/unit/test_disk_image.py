"""Formats of disk images, by real qemu-img: what is read is all there is, or refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from cryptpilot_boot.convert import plan
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure import look
from cryptpilot_boot.system import disk_image
from cryptpilot_boot.system.disk_image import ImageFile
from cryptpilot_boot.system.run import run

SIZE = 37 << 20  # no whole number of a VHD's cylinders
SUBFORMATS = ("fixed", "dynamic")
DIFFERENCING = 4


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.write(os.urandom(3 << 20))
        file.seek(SIZE - 512)
        file.write(b"the last sector".ljust(512))
    return path


def vhd(raw: Path, subformat: str, name: str = "in") -> Path:
    """Make a VHD as others do; its name says nothing."""
    path = raw.with_name(name)
    run(["qemu-img", "convert", "-O", "vpc", "-o", f"subformat={subformat},force_size=on", str(raw), str(path)])
    return path


def say_kind(path: Path, kind: int) -> None:
    """Have the footer, and its copy, say another kind of disk, with the right checksum."""
    content = bytearray(path.read_bytes())
    for start in (0, len(content) - 512):
        if content[start : start + 8] == b"conectix":
            footer = content[start : start + 512]
            struct.pack_into(">I4x", footer, 60, kind)
            struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
            content[start : start + 512] = footer
    path.write_bytes(content)


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_a_vhd_of_either_kind_is_read_to_its_last_byte(raw: Path, subformat: str) -> None:
    """One of a fixed size begins as a raw image does, and only its end tells."""
    image, again, part = vhd(raw, subformat), raw.with_name("again"), raw.with_name("part")
    found = disk_image.facts(image)
    assert found == ImageFile("vpc", SIZE)
    plan.require_readable(found, "in")
    disk_image.convert(image, found.format, again, disk_image.RAW)
    assert again.read_bytes() == raw.read_bytes()
    disk_image.extract(image, found.format, 1 << 20, 1 << 20, part)
    assert part.read_bytes() == raw.read_bytes()[1 << 20 : 2 << 20]


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("kind", [0, 2, DIFFERENCING, 5])
def test_a_vhd_that_needs_a_parent_is_refused(raw: Path, kind: int) -> None:
    """What the parent has would be zeros, and no program would say so."""
    image = vhd(raw, "dynamic")
    say_kind(image, kind)
    found = disk_image.facts(image)
    assert found.parts == ("a parent disk",)
    with pytest.raises(CryptpilotError, match="in needs a parent disk"):
        plan.require_readable(found, "in")
    with pytest.raises(CryptpilotError, match="cannot be measured: needs a parent disk"):
        look.found(image)


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("kind", [0, 3, DIFFERENCING])
def test_an_end_that_is_no_footer_of_a_fixed_disk_is_refused(raw: Path, kind: int) -> None:
    """It may be the rest of a VHD whose beginning was lost."""
    image = vhd(raw, "fixed")
    say_kind(image, kind)
    with pytest.raises(CryptpilotError, match=r"in: cannot be read: qemu-img: .*invalid VPC image"):
        disk_image.facts(image)


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("size", [0, 1, 511, 512, 1000])
def test_a_file_that_is_shorter_than_a_footer_is_raw(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    assert disk_image.facts(path).format == "raw"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("out.vhd", "vpc"), ("OUT.VHD", "vpc"), ("out.qcow2", "qcow2"), ("out.raw", "raw"), ("out", "raw")),
        *(("out.vhd.img", "raw"), (".vhd", "raw"), ("vhd", "raw"), ("out.vhdx", "raw")),
    ],
)
def test_the_name_says_what_an_image_is_written_as(name: str, form: str) -> None:
    assert disk_image.format_of(Path(name)) == form


@pytest.mark.needs("qemu-img")
def test_a_vhd_that_is_written_is_dynamic_and_has_the_size_of_the_disk(raw: Path) -> None:
    """Or the table's copy, at the end of the disk, would not be there."""
    image, again = raw.with_name("out.vhd"), raw.with_name("again")
    disk_image.convert(raw, "raw", image, disk_image.format_of(image))
    assert image.read_bytes()[60:64] == b"\0\0\0\x03"
    assert image.stat().st_size < 10 << 20
    assert disk_image.facts(image) == ImageFile("vpc", SIZE)
    disk_image.convert(image, "vpc", again, "raw")
    assert again.read_bytes() == raw.read_bytes()


@pytest.mark.needs("qemu-img")
def test_a_disk_that_a_vhd_does_not_take_is_refused_before_it_is_written(tmp_path: Path) -> None:
    disk_image.require_size("vpc", 2040 << 30)
    disk_image.require_size("raw", 1 << 50)
    with pytest.raises(CryptpilotError, match="the disk has more than the 2040 GiB that a VHD takes"):
        disk_image.require_size("vpc", (2040 << 30) + (1 << 20))
    # qemu-img has it so, and no less
    for size, good in ((2040 << 30, True), ((2040 << 30) + (1 << 20), False)):
        with (tmp_path / "raw").open("wb") as file:
            file.truncate(size)
        status, _ = run(
            [
                *("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on"),
                *(str(tmp_path / "x.vhd"), str(size)),
            ],
            accept=(0, 1),
        )
        assert (status == 0) == good
