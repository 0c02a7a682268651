"""What `image measure` computes is what a machine's TPM holds once it has booted that image, through OVMF."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cryptpilot_boot.system import portable_executable as pe
from tests.boot.measured import BANKS, ask, logged, measure
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.run import run
from tests.lab.tree import SHARE, in_chroot, kernel, kernel_release, root_tree

INIT = Path(__file__).parents[1] / "lab/measured.c"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
KEY = Path("/usr/share/ovmf/PkKek-1-snakeoil.key")
UKIFY = ("systemd-ukify", "systemd-boot-efi", "binutils")
COMMAND_LINE = b"console=ttyS0 panic=-1 quiet"
OS_RELEASE = b'ID=lab\nNAME="Lab"\n'
ESP_START, ESP_SIZE = 1 << 20, 60 << 20


@dataclass(frozen=True)
class Row:
    """How a unified image is made, and booted. release: whose kernel and stub; signed: whether it has a signature."""

    release: str
    command_line: bytes = COMMAND_LINE
    signed: bool = False
    secure_boot: bool = False

    def __str__(self) -> str:
        words = (self.release, "signed" if self.signed else "", "secure-boot" if self.secure_boot else "")
        return "-".join(filter(None, words))


ROWS = (
    # systemd-stub 252, Linux 6.1; of an odd size, which a signature makes even
    Row("bookworm", signed=True),
    # 257, 6.12; it takes blanks from both ends, and adds to the initrd
    Row("trixie", b" console=ttyS0  panic=-1\tquiet \n\0"),
    Row("bookworm", signed=True, secure_boot=True),
    Row("trixie", signed=True, secure_boot=True),
)


@pytest.mark.parametrize(
    "row",
    [ROWS[0], *(pytest.param(row, marks=pytest.mark.matrix) for row in ROWS[1:])],
    ids=[str(row) for row in ROWS],
)
def test_a_machine_has_measured_what_was_computed(row: Row, tmp_path: Path) -> None:
    image = make_disk(make_unified(row, tmp_path), tmp_path)
    expected = measure(image, options=["--secure-boot"] if row.secure_boot else [])
    assert expected["refused"] == {}
    machine = qemu.Machine(
        None,
        None,
        "",
        (Disk(image, "system"),),
        memory_mb=1024,
        uefi=True,
        secure_boot=row.secure_boot,
        tpm=True,
        snapshot=True,
    )
    console = qemu.boot(machine, timeout=200, log=tmp_path / "console.log").check().console
    for bank in BANKS:
        found = re.findall(rf"^PCR {bank} (\d+) ([0-9A-F]+)$", console, re.MULTILINE)
        values = {number: value.lower() for number, value in found}
        assert len(values) == 24
        assert expected["pcrs"][bank] == {number: values[number] for number in ("4", "5", "9", "11", "12")}
    # and the log tells the same of each event, in the same order within a register
    events = logged("".join(re.findall(r"^LOG ([0-9a-f]+)$", console, re.MULTILINE)))
    for pcr in (4, 5, 9, 11):
        computed = [{bank: one[bank] for bank in BANKS} for one in expected["events"] if one["pcr"] == pcr]
        assert computed == [digests for number, digests in events if number == pcr]


def test_an_image_is_measured_in_either_format_and_what_is_in_the_way_is_refused(tmp_path: Path) -> None:
    image = make_disk(make_unified(ROWS[0], tmp_path), tmp_path)
    before, expected = sha256(image), measure(image)
    for form in ("qcow2", "vpc"):
        run(["qemu-img", "convert", "-f", "raw", "-O", form, image, tmp_path / form])
        assert measure(tmp_path / form) == expected
    assert sha256(image) == before
    place = f"{image}@@{ESP_START}"
    run(["mmd", "-i", place, "::/loader", "::/loader/credentials"])
    run(["mcopy", "-i", place, tmp_path / "share/cmdline", "::/loader/credentials/x.cred"])
    said = measure(image, status=1)
    assert sorted(said["refused"]) == ["12", "9"]
    assert said["pcrs"]["sha256"] == {number: expected["pcrs"]["sha256"][number] for number in ("4", "5", "11")}
    run(["mcopy", "-o", "-i", place, tmp_path / "share/linux", "::/EFI/BOOT/BOOTX64.EFI"])
    assert sorted(measure(image, status=1)["refused"]) == ["11", "12", "4", "5", "9"]
    refusals: tuple[tuple[list[Any], str], ...] = (
        (["mcopy", "-o", "-i", place, tmp_path / "share/cmdline", "::/EFI/BOOT/BOOTX64.EFI"], "is not a UEFI program"),
        (["mdel", "-i", place, "::/EFI/BOOT/BOOTX64.EFI"], "has no /EFI/BOOT/BOOTX64.EFI"),
        (["sfdisk", "--quiet", "--part-type", image, "1", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"], "has 0 EFI system"),
        (
            ["dd", "status=none", "if=/dev/zero", f"of={image}", "bs=1M", "count=1", "conv=notrunc"],
            "has no partition table",
        ),
    )
    for command, reason in refusals:
        run(command)
        done = ask(image)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr


def make_unified(row: Row, work: Path) -> Path:
    """Make a unified kernel image whose init says what the TPM holds."""
    tree = root_tree(row.release, UKIFY if row.release == "trixie" else ())
    share = work / "share"
    share.mkdir()
    shutil.copy(kernel(tree), share / "linux")
    (share / "cmdline").write_bytes(row.command_line)
    (share / "osrel").write_bytes(OS_RELEASE)
    (share / "uname").write_text(kernel_release(tree))
    run(["gcc", "-O1", "-static", "-o", work / "init", INIT])
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet"], input=b"init\n", cwd=work, capture_output=True, check=True
    )
    (share / "initrd").write_bytes(archive.stdout)
    target = share / "unified.efi"
    if row.release == "trixie":
        parts = [f"--{name}={SHARE}/{file}" for name, file in (("linux", "linux"), ("initrd", "initrd"))]
        parts += [f"--{name}=@{SHARE}/{file}" for name, file in (("cmdline", "cmdline"), ("os-release", "osrel"))]
        release = f"--uname={kernel_release(tree)}"
        in_chroot(tree, ["ukify", "build", *parts, release, f"--output={SHARE}/unified.efi"], share=share)
    else:
        # as `convert --uki` does it
        names = ("osrel", "cmdline", "uname", "initrd", "linux")
        pe.add_sections(STUB, [(f".{name}", share / name) for name in names], target)
    return sign(target, work) if row.signed else target


def sign(program: Path, work: Path) -> Path:
    """Put a signature on a program, by the key that Debian's OVMF has for tests."""
    key = work / "key"
    run(["openssl", "rsa", "-in", KEY, "-passin", "pass:snakeoil", "-out", key])
    target = program.with_name("signed.efi")
    pe.sign(program, key, KEY.with_suffix(".pem"), target)
    return target


def make_disk(program: Path, work: Path) -> Path:
    """Make a disk whose EFI system partition holds a program that firmware starts."""
    disk = blank_disk(work / "disk.img", ESP_START + ESP_SIZE + (1 << 20))
    row = f"start={ESP_START // 512}, size={ESP_SIZE // 512}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    run(["sfdisk", "--quiet", disk], stdin=f"label: gpt\n1 : {row}\n")
    place = f"{disk}@@{ESP_START}"
    run(["mformat", "-i", place, "-F", "-T", str(ESP_SIZE // 512), "::"])
    run(["mmd", "-i", place, "::/EFI", "::/EFI/BOOT"])
    run(["mcopy", "-i", place, program, "::/EFI/BOOT/BOOTX64.EFI"])
    return disk
