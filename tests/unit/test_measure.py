"""What a verifier has to expect: computed of values, held against what real boots have measured."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryptpilot_boot.commands import image_measure
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure import gpt, look, registers, stub, unified
from cryptpilot_boot.measure.registers import Measurement, of_bytes
from cryptpilot_boot.system import portable_executable as pe
from cryptpilot_boot.system.partition_table import ESP

CALLING = b"Calling EFI Application from Boot Option"
# events and registers of two boots: OVMF 2022.11, swtpm; systemd-stub 252 with Linux 6.1, and 257 with 6.12
REAL = {
    4: (
        (
            hashlib.sha256(CALLING).hexdigest(),
            hashlib.sha256(bytes(4)).hexdigest(),
            "3be794c463a38f401e1f8f3a51390f3da7026f85d7080187abc0f969927fc608",
            "5f21ff2c0d5d899842b28a8b19901ba72cf7a7ab93c02a77fadc6ff72be85b31",
        ),
        "80a0941215799212a13668e7a8c4021caa7d2ecc3227f97b7b3a7d6aeed9bcd3",
    ),
    9: (
        (
            "93087c6f6dfde734c8a9792e70391de29a8fbec72f59902a640e51d71f2b23ff",
            "f0ab26a34749d0f165204542027050bb24a7bc8b4c910f89a0ce64cb1c2a1f55",
        ),
        "777014f29d2d6b4e603e9082bda510e91983c99d27fe8e6364fa0f30decc3e50",
    ),
}
COMMAND_LINE = b"console=ttyS0 panic=-1 quiet"
MANGLED = b" console=ttyS0  panic=-1\tquiet \n\0"


def linux(release: str) -> bytes:
    """Return the beginning of a kernel, as the boot protocol has it."""
    text = f"{release} (lab@lab) #1 SMP\0".encode()
    return bytes(0x202) + b"HdrS" + bytes(8) + struct.pack("<H", 0x100) + bytes(0x300 - 0x210) + text


def found(version: str = "257.13-1", release: str = "6.12.1-lab", **changes: Any) -> unified.MeasuredDisk:
    sections = {
        ".sbat": b"sbat,1",
        ".sdmagic": f"#### LoaderInfo: systemd-stub {version} ####".encode(),
        ".osrel": b"ID=lab\n",
        ".cmdline": COMMAND_LINE,
        ".uname": release.encode(),
        ".linux": linux(release),
        ".initrd": b"initrd",
    }
    digests = {bank: hashlib.new(bank, b"program").hexdigest() for bank in registers.BANKS}
    kernel = {bank: hashlib.new(bank, b"kernel").hexdigest() for bank in registers.BANKS}
    names = (".text", ".reloc", *sections)
    whole = unified.MeasuredDisk(digests, names, sections, kernel, (unified.LOADER,), b"table")
    return replace(whole, **changes)


def changed(section: str, content: bytes) -> unified.MeasuredDisk:
    usual = found()
    return replace(usual, sections={**usual.sections, section: content})


@pytest.mark.parametrize("pcr", REAL)
def test_events_of_a_real_boot_give_its_registers(pcr: int) -> None:
    digests, value = REAL[pcr]
    events = [Measurement(pcr, "", {"sha256": digest}) for digest in digests]
    assert registers.replay(events, "sha256") == {pcr: value}


def test_each_register_is_extended_by_its_own_events_in_their_order() -> None:
    one, two = of_bytes(4, "", b"one"), of_bytes(4, "", b"two")
    other = of_bytes(9, "", b"one")
    alone = registers.replay([one, two], "sha384")[4]
    assert len(alone) == 96
    assert registers.replay([one, other, two], "sha384") == {4: alone, 9: registers.replay([other], "sha384")[9]}
    assert registers.replay([two, one], "sha384")[4] != alone


def test_registers_of_tdx_take_the_events_of_several_pcrs() -> None:
    """By the map of the UEFI specification, in the order of all; what only a TPM gets is left out."""
    events = [of_bytes(4, "", b"a"), of_bytes(11, "", b"b"), of_bytes(5, "", b"c"), of_bytes(9, "", b"d")]
    once = [*events, of_bytes(5, "", b"only a TPM", confidential=False)]

    def chained(*parts: bytes) -> str:
        value = bytes(48)
        for part in parts:
            value = hashlib.sha384(value + hashlib.sha384(part).digest()).digest()
        return value.hex()

    assert registers.rtmrs(once) == {1: chained(b"a", b"c"), 2: chained(b"b", b"d")}
    with pytest.raises(CryptpilotError, match="not known whether the stub"):
        registers.rtmrs([*events, of_bytes(11, "the stub", b"", confidential=None)])
    with pytest.raises(CryptpilotError, match="PCR 16"):
        registers.rtmrs([of_bytes(16, "", b"")])


@pytest.mark.parametrize(
    ("version", "digest"),
    [
        (252, "3b7f27cc253712a7f6ef99594e5259cf4d75e685daa3bb05668b62f7c274cb9d"),
        (257, "90b5cc0575e325091d6f71cb20042261cc225d82ccceede0d89f0035722d9379"),
    ],
)
def test_the_command_line_is_what_the_kernel_has_measured_in_a_real_boot(version: int, digest: str) -> None:
    options = stub.load_options(MANGLED, stub.STUBS[version])
    assert options is not None
    assert hashlib.sha256(options).hexdigest() == digest
    plain = stub.load_options(COMMAND_LINE, stub.STUBS[version])
    assert plain is not None
    assert hashlib.sha256(plain).hexdigest() == REAL[9][0][0]


@pytest.mark.parametrize("line", [b"", b" \n", b"\0root=/dev/sda", "root=ä".encode(), b"\xff"])
def test_a_command_line_that_is_not_plain_is_refused(line: bytes) -> None:
    assert set(unified.expected(changed(".cmdline", line)).refused) == {9}


@pytest.mark.needs("cpio")
def test_the_archive_that_the_stub_adds_is_an_archive(tmp_path: Path) -> None:
    data = stub.archive(".extra/os-release", b"ID=lab\n")
    subprocess.run(["cpio", "--extract", "--quiet"], input=data, cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / ".extra/os-release").read_bytes() == b"ID=lab\n"
    assert len(data) % 4 == 0


def test_releases_differ_in_what_they_measure() -> None:
    old, new = (unified.expected(found(*pair)) for pair in (("252.39-1~deb12u2", "6.1.0-5-lab"), ("257.13-1",)))
    names = [[one.what for one in each.events if one.pcr == 11] for each in (old, new)]
    common = [".linux", ".osrel", ".cmdline", ".initrd"]
    assert names[0] == [word for name in common for word in (f"name of {name}", name)]
    assert names[1] == [word for name in (*common, ".uname", ".sbat") for word in (f"name of {name}", name)]
    assert old.refused == new.refused == {}
    assert old.rtmrs()[0] == {}
    assert "not known" in old.rtmrs()[1]
    assert sorted(new.rtmrs()[0]) == [1, 2]
    assert new.rtmrs()[1] == ""


@pytest.mark.parametrize("section", [".linux", ".initrd", ".cmdline", ".osrel", ".uname", ".sbat"])
def test_each_part_counts(section: str) -> None:
    usual = unified.expected(found()).pcrs("sha256")
    content = found().sections[section]
    other = unified.expected(changed(section, content + b"x")).pcrs("sha256")
    differ = {number for number in usual if usual[number] != other[number]}
    assert differ == ({11, 9} if section in (".initrd", ".cmdline", ".osrel") else {11})


def test_with_secure_boot_firmware_does_not_measure_the_kernel() -> None:
    """Seen in real boots: the stub has firmware load it without its checks."""
    usual, secure = unified.expected(found()), unified.expected(found(), secure_boot=True)
    assert [one for one in usual.events if one not in secure.events] == [
        Measurement(4, f"kernel in {unified.LOADER}", found().kernel)
    ]
    assert usual.rtmrs()[0][2] == secure.rtmrs()[0][2]
    values = [one.pcrs("sha256") for one in (usual, secure)]
    assert {number for number in values[0] if values[0][number] != values[1][number]} == {4}


def test_what_nothing_extends_is_zero() -> None:
    assert unified.expected(found()).pcrs("sha256")[12] == "0" * 64
    assert unified.expected(found()).pcrs("sha384")[12] == "0" * 96


NAMES = found().names


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": (".text", ".data", "mods")}, "is not a unified kernel image"),
        ({"names": tuple(name for name in NAMES if name != ".initrd")}, "lacks .initrd"),
        ({"names": tuple(name for name in NAMES if name != ".sdmagic")}, "lacks .sdmagic"),
        ({"names": (*NAMES, ".profile")}, "unknown sections, .profile"),
        ({"names": (*NAMES, ".ucode", ".dtb")}, "unknown sections, .ucode, .dtb"),
        ({"names": (*NAMES, ".cmdline")}, "more than one of .cmdline"),
        ({"version": "258~rc1"}, "systemd-stub 258; supported: systemd-stub 252, 257"),
        ({"version": ""}, "does not name itself"),
        ({"version": "257 #### x"}, "does not name itself"),
    ],
)
def test_what_is_not_known_is_refused_as_a_whole(changes: dict[str, Any], reason: str) -> None:
    expected = unified.expected(found(**changes))
    assert set(expected.refused) == set(unified.COMPUTED)
    assert all(reason in why for why in expected.refused.values()), expected.refused
    assert expected.events == ()
    assert expected.pcrs("sha256") == {}
    assert expected.rtmrs()[0] == {}


@pytest.mark.parametrize(
    "path",
    [
        "/loader/credentials/x.cred",
        "/loader/addons/x.addon.efi",
        "/LOADER/random-seed",
        "/EFI/BOOT/BOOTX64.EFI.extra.d/x.cred",
        "/efi/boot/bootx64.efi.extra.d/x.addon.efi",
        "/startup.nsh",
    ],
)
def test_files_that_the_stub_may_read_are_no_part_of_what_is_known(path: str) -> None:
    expected = unified.expected(found(files=(unified.LOADER, path)))
    assert set(expected.refused) == {9, 12}
    assert path in expected.refused[9]
    assert set(expected.pcrs("sha256")) == {4, 5, 11}
    assert expected.rtmrs() == ({}, "not every event is known")


def test_files_of_other_loaders_change_nothing() -> None:
    other = unified.expected(found(files=("/EFI/BOOT/fbx64.efi", unified.LOADER, "/EFI/debian/grubx64.efi")))
    assert other == unified.expected(found())


@pytest.mark.parametrize("release", ["5.14.0-503.el9", "6.13.1", "6.10.3", "no release", ""])
def test_a_kernel_that_is_not_known_leaves_out_what_it_measures(release: str) -> None:
    expected = unified.expected(found(release=release))
    assert set(expected.refused) == {9}
    assert set(expected.pcrs("sha256")) == {4, 5, 11, 12}


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF" + bytes(4096), linux("6.1.0")[:0x210], bytes(0x8000)])
def test_what_is_no_kernel_has_no_release(content: bytes) -> None:
    assert stub.kernel_release(content) == ""
    assert stub.kernel_release(linux("6.1.0-56-cloud-amd64")) == "6.1.0-56-cloud-amd64"


def entry(kind: int) -> bytes:
    return (bytes([kind]) * 16 if kind else bytes(16)).ljust(128, b"\1" if kind else b"\0")


def disk(*kinds: int, first: int = 2, entries: int = 128, size: int = 128, magic: bytes = b"EFI PART") -> bytes:
    header = struct.pack(
        "<8sIIIIQQQQ16sQIII", magic, 1 << 16, 92, 1, 0, 1, 9, 34, 8, bytes(16), first, entries, size, 2
    )
    return bytes(512) + header.ljust(512, b"\0") + b"".join(entry(one) for one in kinds).ljust(128 * 128, b"\0")


def test_of_a_partition_table_its_header_and_what_is_used_is_measured() -> None:
    whole = disk(1, 0, 2)
    assert gpt.measured(whole, 2) == whole[512 : 512 + 92] + struct.pack("<Q", 2) + entry(1) + entry(2)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (disk(1), 2),
        (disk(1, 2), 1),
        (disk(1, first=3), 1),
        (disk(1, size=256), 1),
        (disk(1, entries=129), 1),
        (disk(1, magic=b"EFI part"), 1),
        (disk(1)[:1000], 1),
        (b"", 0),
    ],
)
def test_a_partition_table_of_another_kind_is_refused(content: bytes, count: int) -> None:
    with pytest.raises(CryptpilotError):
        gpt.measured(content, count)


OBJDUMP = """
unified.efi:     file format pei-x86-64

Sections:
Idx Name          Size      VMA               LMA               File off  Algn  Flags
  0 .text         0001080e  000000014df91000  000000014df91000  00000600  2**4  CONTENTS, ALLOC, LOAD, READONLY, CODE
  6 .osrel        00000026  000000014dfab000  000000014dfab000  00016800  2**2  CONTENTS, ALLOC, LOAD, READONLY, DATA
"""


def test_sections_are_read_as_objdump_has_them() -> None:
    assert pe.parse_sections(OBJDUMP) == [(".text", 0x1080E), (".osrel", 0x26)]
    assert pe.parse_sections(OBJDUMP.replace("pei-x86-64", "elf64-x86-64")) is None
    with pytest.raises(CryptpilotError, match="cannot be read"):
        pe.parse_sections(OBJDUMP.replace(".osrel ", ".os rel"))


@pytest.mark.parametrize("text", ["hash: {}\n", "{} /run/x/program\n", "x {}\n"])
def test_a_digest_is_found_in_what_any_release_of_pesign_says(text: str) -> None:
    assert pe.parse_digest(text.format("ab" * 32)) == "ab" * 32


@pytest.mark.parametrize("text", ["", "hash: abc", f"{'ab' * 32} {'cd' * 32}", "ab" * 33])
def test_no_digest_is_guessed(text: str) -> None:
    with pytest.raises(CryptpilotError, match="no digest"):
        pe.parse_digest(text)


def test_the_table_says_what_is_refused_and_the_status_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    image.touch()
    lines: list[str] = []
    for one, good in ((found(), True), (found(release="5.14.0-1"), False)):
        monkeypatch.setattr(look, "found", lambda _, one=one: one)
        lines.clear()
        assert image_measure.measure(image, secure_boot=False, as_json=False, say=lines.append) is good
        shown = "\n".join(lines)
        assert f"PCR 11    {unified.expected(one).pcrs('sha256')[11]}" in shown
        assert ("PCR 9: not computed: what kernel 5.14.0-1 measures" in shown) is not good
        assert ("RTMR[2]" in shown) is good
        lines.clear()
        assert image_measure.measure(image, secure_boot=False, as_json=True, say=lines.append) is good
        said = json.loads("\n".join(lines))
        assert said["kernel_command_line"] == COMMAND_LINE.decode()
        assert list(said["refused"]) == ([] if good else ["9"])
        assert said["rtmrs_tested"] is False


def test_a_control_sequence_of_an_image_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    image.touch()
    monkeypatch.setattr(look, "found", lambda _: changed(".cmdline", b"quiet \x1b[2J\n"))
    lines: list[str] = []
    image_measure.measure(image, secure_boot=False, as_json=False, say=lines.append)
    assert not {"\x1b", "\n"} & set("".join(lines))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "not a regular file"), (tmp_path / "missing", "No such file")):
        with pytest.raises(CryptpilotError, match=reason):
            image_measure.measure(path, secure_boot=False, as_json=True, say=print)


@pytest.mark.needs("qemu-img", "sfdisk")
def test_an_image_without_a_way_to_boot_is_refused(tmp_path: Path) -> None:
    linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
    for kinds in ((linux,), (ESP, linux, ESP)):
        with (tmp_path / "disk").open("wb") as file:
            file.truncate(8 << 20)
        script = "label: gpt\n" + "".join(f"size=2048, type={kind}\n" for kind in kinds)
        subprocess.run(["sfdisk", "--quiet", tmp_path / "disk"], input=script, text=True, check=True)
        with pytest.raises(CryptpilotError, match=f"has {kinds.count(ESP)} EFI system partitions"):
            look.found(tmp_path / "disk")
