"""A unified kernel image takes what GRUB would start, and goes where firmware looks for it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot.convert import plan, requirements, unify
from cryptpilot_boot.convert.plan import Unified
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import portable_executable as pe
from cryptpilot_boot.system import programs, workplace
from cryptpilot_boot.system.foreign_root import Root
from tests.unit.test_convert_plan import FOUND, VOLUME

RELEASE = "6.1.0-56-cloud-amd64"
GRUB = """
menuentry 'Debian GNU/Linux' {
\tlinux\t/vmlinuz-6.1.0-56-cloud-amd64 root=/dev/mapper/root ro console=ttyS0,115200 panic=-1
\tinitrd\t/initrd.img-6.1.0-56-cloud-amd64
}
\tlinux\t/boot/vmlinuz-5.10.0 root=/dev/mapper/root ro single
"""


def test_the_default_entry_is_taken() -> None:
    release, line = unify.entry(GRUB)
    assert (release, line) == ("6.1.0-56-cloud-amd64", "root=/dev/mapper/root ro console=ttyS0,115200 panic=-1")
    assert unify.entry(GRUB.replace("/vmlinuz-6.1", "/boot/vmlinuz-6.1"))[0] == release


@pytest.mark.parametrize("word", ["$vt_handoff", '"a b"', "'quiet'", "a\\ b", "x=`y`", "ä"])
def test_what_grub_would_change_is_refused(word: str) -> None:
    with pytest.raises(CryptpilotError, match="GRUB may change"):
        unify.entry(GRUB.replace("panic=-1", word))


@pytest.mark.parametrize(
    "text", ["", "linux /bzImage root=x ro\n", "linux /vmlinuz-../../x ro\n", "linux /vmlinuz-6.1"]
)
def test_an_entry_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(CryptpilotError, match="names no kernel"):
        unify.entry(text)


def unified(**changes: object) -> plan.Conversion:
    system = dataclasses.replace(FOUND.system, **changes)  # type: ignore[arg-type]
    found = dataclasses.replace(FOUND, system=system)
    return plan.make(found, VOLUME, plan.roles(found.table, found.contents), Unified())


def test_an_image_has_to_have_a_stub_and_a_place_to_start_it_from() -> None:
    assert unified().unified == Unified()
    with pytest.raises(CryptpilotError, match=r"no /usr/lib/systemd/boot/efi/linuxx64\.efi\.stub"):
        unified(present=FOUND.system.present - {requirements.STUB})
    fstab = "".join(line for line in FOUND.system.fstab.splitlines(keepends=True) if "/boot/efi" not in line)
    found = dataclasses.replace(FOUND, system=dataclasses.replace(FOUND.system, fstab=fstab))
    roles = dataclasses.replace(plan.roles(FOUND.table, FOUND.contents), esp=None)
    assert plan.make(found, VOLUME, roles).unified is None
    with pytest.raises(CryptpilotError, match="no EFI system partition"):
        plan.make(found, VOLUME, roles, Unified())


def test_what_is_missing_here_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "is_there", lambda program: program != "sbsign")
    unify.require_programs(Unified())
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    with pytest.raises(CryptpilotError, match="sbsign, which is missing"):
        unify.require_programs(Unified(key, certificate))
    monkeypatch.setattr(programs, "is_there", lambda _: True)
    key.touch()
    with pytest.raises(CryptpilotError, match="certificate: no such file"):
        unify.require_programs(Unified(key, certificate))
    certificate.touch()
    unify.require_programs(Unified(key, certificate))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Puts a unified kernel image, made without its programs, into a partition, and returns where that is."""
    root, esp, work = (tmp_path / name for name in ("root", "esp", "work"))
    for name in (f"boot/vmlinuz-{RELEASE}", f"boot/initrd.img-{RELEASE}"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    work.mkdir()
    esp.mkdir()
    monkeypatch.setattr(pe, "add_sections", lambda _, __, target: target.write_bytes(b"unified"))
    monkeypatch.setattr(workplace, "private_directory", lambda *_, **__: contextlib.nullcontext(work))

    def install() -> Path:
        unify.install(Root(root), GRUB, esp, Unified())
        return esp

    return install


def test_a_loader_that_is_there_is_replaced_in_whichever_case_it_is_written(
    tmp_path: Path, install: Callable[[], Path]
) -> None:
    old = tmp_path / "esp/efi/Boot/bootx64.efi"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"a boot loader")
    esp = install()
    assert [path.relative_to(esp) for path in esp.rglob("*") if path.is_file()] == [Path("efi/Boot/bootx64.efi")]
    assert old.read_bytes() == b"unified"


def test_directories_for_it_are_made(install: Callable[[], Path]) -> None:
    assert (install() / "EFI/BOOT/BOOTX64.EFI").read_bytes() == b"unified"


def test_a_partition_without_room_for_it_is_refused(
    install: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workplace, "room", lambda _: 1 << 20)
    with pytest.raises(CryptpilotError, match="EFI system partition has 1 MiB left") as raised:
        install()
    assert "enlarge" in raised.value.hint
