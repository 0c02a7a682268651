"""A machine's unified kernel image is made again only of what would boot, and the old one stays until that is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cryptpilot_boot.commands import image_check, image_unify
from cryptpilot_boot.config import Boot, Config
from cryptpilot_boot.convert import requirements
from cryptpilot_boot.convert.plan import Unified
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure import stub
from cryptpilot_boot.system import lock, programs
from cryptpilot_boot.system import portable_executable as pe
from tests.unit.test_convert_plan import VOLUME
from tests.unit.test_unify import GRUB

RELEASE = "6.1.0-56-cloud-amd64"
CONFIG = Config(Path("/etc/cryptpilot"), Boot(), (VOLUME,))
LOADER = "boot/efi/EFI/BOOT/BOOTX64.EFI"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with what it takes; whose ESP is mounted, and whose initrd is well."""
    for name, text in (
        (requirements.STUB, "stub"),
        ("boot/grub/grub.cfg", GRUB),
        (f"boot/initrd.img-{RELEASE}", "initrd"),
        (f"boot/vmlinuz-{RELEASE}", "kernel"),
        ("etc/os-release", "ID=debian\n"),
        (LOADER, "old"),
    ):
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(programs, "is_there", lambda _: True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "boot/efi")
    monkeypatch.setattr(pe, "sections", lambda _: [(stub.LINUX, 1), (stub.INITRD, 1)])
    monkeypatch.setattr(lock, "DIRECTORY", tmp_path / "lock")

    def check(_: object, path: Path, kernel: str, *__: object) -> bool:
        return path == tmp_path / f"boot/initrd.img-{RELEASE}" and kernel == RELEASE

    def added(path: Path, parts: list[tuple[str, Path]], target: Path) -> None:
        target.write_text(" ".join([path.read_text(), *(f"{name}={file.read_text().strip()}" for name, file in parts)]))

    monkeypatch.setattr(image_check, "check", check)
    monkeypatch.setattr(pe, "add_sections", added)
    return tmp_path


def remake(machine: Path, config: Config = CONFIG) -> tuple[bool, list[str]]:
    said: list[str] = []
    return image_unify.remake(config, Unified(), said.append, lambda *_: None, machine), said


def test_it_is_made_of_the_kernel_that_grub_would_start(machine: Path) -> None:
    good, said = remake(machine)
    assert good
    assert said == [f"{machine / LOADER}: starts kernel {RELEASE} from now on; a verifier has to expect other values"]
    made = (machine / LOADER).read_text()
    line = "root=/dev/mapper/root ro console=ttyS0,115200 panic=-1"
    assert made == f"stub .osrel=ID=debian .cmdline={line} .uname={RELEASE} .initrd=initrd .linux=kernel"
    assert [path.name for path in (machine / LOADER).parent.iterdir()] == ["BOOTX64.EFI"]


def test_an_initrd_that_would_not_do_its_work_is_not_taken(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_check, "check", lambda *_: False)
    assert remake(machine) == (False, [])
    assert (machine / LOADER).read_text() == "old"


def test_the_old_one_stays_until_the_new_one_is_whole(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", failing)
    with pytest.raises(CryptpilotError, match=r"BOOTX64\.EFI cannot be replaced: No space left on device"):
        remake(machine)
    assert (machine / LOADER).read_text() == "old"
    assert [path.name for path in (machine / LOADER).parent.iterdir()] == ["BOOTX64.EFI"]


def test_what_one_that_was_killed_left_is_removed(machine: Path) -> None:
    left = machine / f"{LOADER}.cryptpilot-new"
    left.write_text("half")
    assert remake(machine)[0]
    assert not left.exists()


def test_a_kernel_that_was_removed_is_named(machine: Path) -> None:
    (machine / f"boot/vmlinuz-{RELEASE}").unlink()
    with pytest.raises(CryptpilotError, match=f"names .*/vmlinuz-{RELEASE}, which is not there"):
        remake(machine)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("not mounted", "/boot/efi is not mounted"),
        ("no stub", "there is no /usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
        ("no program", "is not a unified kernel image"),
        ("another program", "is not a unified kernel image"),
        ("no UEFI program", "is not a unified kernel image"),
        ("another root", "GRUB boots the kernel with the root UUID=1, which is not a volume"),
        ("another boot loader", "names no kernel"),
    ],
)
def test_another_machine_is_left_alone(
    machine: Path, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    configuration = machine / "boot/grub/grub.cfg"
    if change == "not mounted":
        monkeypatch.setattr(Path, "is_mount", lambda _: False)
    elif change in ("no stub", "no program"):
        (machine / (LOADER if change == "no program" else requirements.STUB.lstrip("/"))).unlink()
    elif change in ("another program", "no UEFI program"):
        monkeypatch.setattr(pe, "sections", lambda _: [(".text", 1)] if change == "another program" else None)
    else:
        text = GRUB.replace("root=/dev/mapper/root", "root=UUID=1") if change == "another root" else ""
        configuration.write_text(text)
    with pytest.raises(CryptpilotError) as refusal:
        remake(machine)
    assert reason in refusal.value.what
    assert refusal.value.hint
    assert not (machine / LOADER).exists() or (machine / LOADER).read_text() == "old"
