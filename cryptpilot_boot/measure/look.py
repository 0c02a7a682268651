"""Reading what is measured out of an image, which is only read, and not mounted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure import gpt, stub, unified
from cryptpilot_boot.system import disk_image, fat, partition_table, workplace
from cryptpilot_boot.system import portable_executable as pe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.system.partition_table import Table

_HEAD = 1 << 20  # bytes: more than any table takes
_IN_MEMORY = Path("/run")


def found(source: Path) -> unified.MeasuredDisk:
    """Read an image. Raises CryptpilotError for one that has no EFI system partition with a UEFI program."""
    image = disk_image.facts(source)
    if image.format not in disk_image.FORMATS or image.parts:
        what = f"needs {image.parts[0]}" if image.parts else f"is {image.format}"
        raise CryptpilotError(
            f"{source}: cannot be measured: {what}",
            f"{disk_image.ARE_READ}; convert it: qemu-img convert",
        )
    with _place(2 * _HEAD) as work:
        head, table = _table(source, image, work)
    esp = _esp(source, table)
    start, size = (value * partition_table.SECTOR for value in (esp.start, esp.size))
    # the partition, the program, its kernel
    with _place(3 * size) as work:
        disk_image.extract(source, image.format, start, size, work / "esp")
        files = fat.files(work / "esp")
        if unified.LOADER.lower() not in [path.lower() for path in files]:
            raise CryptpilotError(
                f"{source}: its EFI system partition has no {unified.LOADER}",
                "only what boots from there can be measured; convert --uki makes such an image",
            )
        fat.copy(work / "esp", unified.LOADER, work / "program")
        return _program(work, tuple(files), gpt.measured(head, len(table.partitions)))


def _table(source: Path, image: disk_image.ImageFile, work: Path) -> tuple[bytes, Table]:
    path = work / "head"
    disk_image.extract(source, image.format, 0, min(_HEAD, image.size), path)
    head = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(image.size)  # according to sfdisk, the disk ends there
    table = partition_table.read(path)
    if table is None or (table.label, table.sector) != ("gpt", partition_table.SECTOR):
        what = "has no partition table" if table is None else f"has a partition table of kind {table.label}"
        raise CryptpilotError(
            f"{source}: cannot be measured: {what}", "only GPT with sectors of 512 bytes is supported"
        )
    return head, table


def _esp(source: Path, table: Table) -> partition_table.Partition:
    esps = [one for one in table.partitions if one.type == partition_table.ESP]
    if len(esps) != 1:
        raise CryptpilotError(
            f"{source}: cannot be measured: it has {len(esps)} EFI system partitions",
            "an image that boots by UEFI has one",
        )
    return esps[0]


def _program(work: Path, files: tuple[str, ...], table: bytes) -> unified.MeasuredDisk:
    path = work / "program"
    sections = pe.sections(path)
    if sections is None:
        raise CryptpilotError(f"{unified.LOADER} is not a UEFI program")
    names = tuple(name for name, _ in sections)
    contents = {}
    for name in unified.sections_to_read(names):
        target = work / name
        if names.count(name) == 1:
            pe.extract(path, name, dict(sections)[name], target)
            contents[name] = target.read_bytes()
            if name != stub.LINUX:
                target.unlink()
    kernel = pe.authenticode(work / stub.LINUX) if contents.get(stub.LINUX) else {}
    return unified.MeasuredDisk(pe.authenticode(path), names, contents, kernel, files, table)


@contextlib.contextmanager
def _place(needed: int) -> Iterator[Path]:
    """Give a directory: an initrd can hold client keys."""
    with workplace.private_directory(needed, in_memory=workplace.is_writable(_IN_MEMORY)) as work:
        yield work
