"""The boot loaders of Enterprise Linux and its relatives, by tables: what each release has, and what becomes of it.

No image of these can be had here. What they have is taken from their packages' sources and from reports of their users,
see `bls` and `bootloader`.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot.convert import bls, bootloader, grub, loading, plan, requirements
from cryptpilot_boot.convert.facts import Kernel, Loader
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.foreign_root import Root
from tests.unit.test_convert_plan import FOUND, ROOT_UUID, VOLUME, without_boot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.convert.facts import InstalledDisk

RELEASE = "4.18.0-553.el8.x86_64"
MACHINE = "a0284538aa5b498cb38b8e530b2a6be4"
KERNEL = f"/boot/vmlinuz-{RELEASE}"
IMAGE = f"/boot/initramfs-{RELEASE}.img"
RESCUE = f"/boot/vmlinuz-0-rescue-{MACHINE}"
RESCUE_IMAGE = f"/boot/initramfs-0-rescue-{MACHINE}.img"
ENTRY = f"{bls.DIRECTORY}/{MACHINE}-{RELEASE}.conf"
RESCUE_ENTRY = f"{bls.DIRECTORY}/{MACHINE}-0-rescue.conf"
CONFIGURATION = "/boot/grub2/grub.cfg"
ENVIRONMENT = "/boot/grub2/grubenv"
ON_ESP = "/boot/efi/EFI/almalinux"
OLD = f"root=UUID={ROOT_UUID}"
NEW = "root=/dev/mapper/root"
WORDS = f"{OLD} ro console=ttyS0 crashkernel=auto"
BLOCK = f"# GRUB Environment Block\nsaved_entry={MACHINE}-{RELEASE}\nkernelopts={WORDS}\nboot_success=0\n{'#' * 800}"


def entry(options: str, boot: str = "", initrd: str = f"/initramfs-{RELEASE}.img") -> str:
    """Return an entry as the kernel's package has it. boot: what is before its paths."""
    return (
        f"title Enterprise Linux ({RELEASE}) 8.10\nversion {RELEASE}\nlinux {boot}/vmlinuz-{RELEASE}\n"
        f"initrd {boot}{initrd}\noptions {options}\nid el-20240101-{RELEASE}\ngrub_users $grub_users\n"
        "grub_arg --unrestricted\ngrub_class kernel\n"
    )


def configuration(fallback: str = "") -> str:
    """Return a grub.cfg that has entries read, as grub2-mkconfig makes it."""
    copy = f'if [ -z "${{kernelopts}}" ]; then\n  set kernelopts="{fallback} "\nfi\n' if fallback else ""
    return f"set root='hd0,gpt2'\nsearch --no-floppy --fs-uuid --set=boot {ROOT_UUID}\n{copy}\ninsmod blscfg\nblscfg\n"


def stub(directory: str) -> str:
    """Return a grub.cfg on an EFI system partition as Enterprise Linux 9 has it."""
    return (
        f"search --no-floppy --fs-uuid --set=dev {ROOT_UUID}\nset prefix=($dev){directory}\n\nexport $prefix\n"
        "configfile $prefix/grub.cfg\n"
    )


EL8 = Loader(
    configurations={CONFIGURATION: configuration(WORDS)},
    entries={ENTRY: entry("$kernelopts $tuned_params", initrd=f"/initramfs-{RELEASE}.img $tuned_initrd")},
    environments={ENVIRONMENT: BLOCK},
    releases={KERNEL: RELEASE},
    images=frozenset({IMAGE}),
)
EL9 = Loader(
    configurations={CONFIGURATION: configuration(), f"{ON_ESP}/grub.cfg": stub("/grub2")},
    entries={ENTRY: entry(WORDS)},
    environments={ENVIRONMENT: "# GRUB Environment Block\nboot_success=0\n#####"},
    command_line=f"{WORDS}\n",
    releases={KERNEL: RELEASE},
    images=frozenset({IMAGE}),
)
EL8_UEFI = dataclasses.replace(
    EL8,
    configurations={f"{ON_ESP}/grub.cfg": configuration(WORDS)},
    environments={f"{ON_ESP}/grubenv": BLOCK},
)
"""Its grub.cfg is on the EFI system partition, all of it, and /boot/grub2/grubenv is a link to that there."""
INSIDE = dataclasses.replace(EL8, entries={ENTRY: entry("$kernelopts $tuned_params", "/boot")})
"""Alibaba Cloud Linux 3 and Anolis 8: /boot is a directory of the root."""
INSIDE_UEFI = dataclasses.replace(
    EL9,
    configurations={CONFIGURATION: configuration(), f"{ON_ESP}/grub.cfg": stub("/boot/grub2")},
    entries={ENTRY: entry(WORDS, "/boot")},
)
RESCUED = dataclasses.replace(
    EL8,
    entries={
        **EL8.entries,
        RESCUE_ENTRY: entry("$kernelopts")
        .replace(f"-{RELEASE}\n", f"-0-rescue-{MACHINE}\n")
        .replace(IMAGE[5:], RESCUE_IMAGE[5:]),
    },
    releases={KERNEL: RELEASE, RESCUE: RELEASE},
    images=frozenset({IMAGE, RESCUE_IMAGE}),
)
CLASSIC = Loader({CONFIGURATION: f"\tlinux16 /vmlinuz-{RELEASE} {WORDS}\n\tinitrd16 /initramfs-{RELEASE}.img\n"})
"""Without GRUB_ENABLE_BLSCFG, as Enterprise Linux 7 is."""
PRESENT = frozenset(requirements.LOOKED_FOR) - {
    *("/etc/kernel/install.conf", "/boot/grub", bootloader.DEBIAN.mkconfig, bootloader.DEBIAN.install),
    *(bootloader.DEBIAN.editenv, "/usr/lib/grub/x86_64-efi"),
}


def image(loader: Loader, *, inside: bool = False, uefi: bool = True, **changes: Any) -> InstalledDisk:
    """Return an image of Enterprise Linux. inside: whether /boot is a directory of its root."""
    found = without_boot() if inside else FOUND
    kernels = (Kernel(RELEASE, (IMAGE[1:],)),)
    system = dataclasses.replace(
        found.system,
        name="Enterprise Linux 8",
        loader=loader,
        kernels=kernels,
        **{"present": PRESENT, "boot_free": 300 << 20, **changes},
    )
    table = found.table
    if not uefi:
        table = dataclasses.replace(table, partitions=tuple(one for one in table.partitions if one.number != 15))
    return dataclasses.replace(found, system=system, table=table)


def changed(found: InstalledDisk) -> bootloader.Change:
    return plan.make(found, VOLUME, plan.roles(found.table, found.contents)).loader


@pytest.mark.parametrize("loader", [EL8, EL9, EL8_UEFI, RESCUED], ids=["8", "9", "8 UEFI", "rescue"])
def test_entries_are_mended_where_they_have_their_parameters_and_no_program_of_grub_is_run(loader: Loader) -> None:
    made = changed(image(loader))
    assert (made.grub, made.install, made.generated) == (bootloader.ENTERPRISE, (), ())
    new = bootloader.mended(made, VOLUME, "")
    for texts in (new.configurations, new.entries, new.environments, {"": new.command_line}):
        assert not any(OLD in text for text in texts.values())
    assert bootloader.faults(new, VOLUME, made.booting) == []
    assert {one.value("root") for one in bls.kernels(new)} == {"/dev/mapper/root"}
    assert {one.value("console") for one in bls.kernels(new)} == {"ttyS0"}
    # nothing else is another byte
    for old, mended in (
        (loader.entries, new.entries),
        (loader.environments, new.environments),
        (loader.configurations, new.configurations),
        ({"": loader.command_line}, {"": new.command_line}),
    ):
        assert {path: text.replace(OLD, NEW) for path, text in old.items()} == mended


@pytest.mark.parametrize(
    ("loader", "kept", "wrong"),
    [
        (EL8, {"environments": EL8.environments}, True),
        (EL8, {"environments": {}, "configurations": EL8.configurations}, True),
        (EL8, {"environments": {}}, False),
        (EL9, {"entries": EL9.entries}, True),
        (EL9, {"entries": {ENTRY: entry(f"{NEW} ro").replace("initrd", "#")}}, True),
        (RESCUED, {"entries": {**EL8.entries, RESCUE_ENTRY: entry(WORDS)}}, True),
        (EL8_UEFI, {"configurations": {}}, True),
    ],
)
def test_a_root_that_is_another_one_is_seen_wherever_it_is(loader: Loader, kept: dict[str, Any], wrong: bool) -> None:
    made = changed(image(loader))
    new = bootloader.mended(made, VOLUME, "")
    assert bootloader.faults(new, VOLUME, made.booting) == []
    assert bool(bootloader.faults(dataclasses.replace(new, **kept), VOLUME, made.booting)) == wrong


def test_a_boot_inside_the_root_moves_and_its_paths_with_it() -> None:
    made = changed(image(INSIDE, inside=True, uefi=False))
    assert made.install == (("grub2-install", "--target=i386-pc", "{disk}"),)
    assert made.generated == (CONFIGURATION,)
    new = bootloader.mended(made, VOLUME, "11111111-2222")
    assert bls.values(new.entries[ENTRY], "linux") == f"/vmlinuz-{RELEASE}"
    assert bls.values(new.entries[ENTRY], "initrd") == f"/initramfs-{RELEASE}.img"
    assert bls.initrds(new.entries[ENTRY], {}) == [IMAGE]


def test_signed_programs_find_a_boot_that_has_moved_by_their_own_grub_cfg() -> None:
    made = changed(image(INSIDE_UEFI, inside=True))
    assert [command[1] for command in made.install] == ["--target=i386-pc"]
    assert made.uses_esp
    new = bootloader.mended(made, VOLUME, "11111111-2222")
    assert new.configurations[f"{ON_ESP}/grub.cfg"] == stub("/grub2").replace(ROOT_UUID, "11111111-2222")


@pytest.mark.parametrize("quote", ["", "'"])
def test_a_grub_cfg_that_leads_to_boot_is_known_in_both_forms(quote: str) -> None:
    place = f"{quote}/boot/grub{quote}"
    old = f"search.fs_uuid {ROOT_UUID} root hd0,gpt2 \nset prefix=($root){place}\nconfigfile $prefix/grub.cfg\n"
    new = grub.led_to(old, ROOT_UUID, "11111111-2222")
    assert new == old.replace(ROOT_UUID, "11111111-2222").replace("/boot/grub", "/grub")
    for odd in ("configfile (hd0,gpt1)/boot/grub2/grub.cfg\n", "set prefix=($dev)/boot/grub2\n", ""):
        assert grub.led_to(odd, ROOT_UUID, "11111111-2222") is None


def test_a_rescue_entry_gets_an_image_that_opens_the_volume() -> None:
    assert changed(image(RESCUED)).copies == {RESCUE_IMAGE: IMAGE}
    assert changed(image(EL8)).copies == {}
    with pytest.raises(CryptpilotError, match="its initrds need"):
        changed(image(RESCUED, boot_free=100 << 20))
    assert changed(image(EL8, boot_free=100 << 20))


def test_a_configuration_without_entries_is_generated() -> None:
    made = changed(image(CLASSIC))
    assert (made.generated, made.reads_entries) == ((CONFIGURATION,), False)


REFUSED: dict[str, tuple[InstalledDisk, str]] = {
    "no entries": (image(dataclasses.replace(EL8, entries={})), "boots no Linux"),
    "no root": (image(dataclasses.replace(EL9, entries={ENTRY: entry("ro quiet")})), "with the root nothing"),
    "quoted root": (image(dataclasses.replace(EL9, entries={ENTRY: entry(f'"{OLD}" ro')})), f"root UUID={ROOT_UUID}"),
    "kernel": (image(dataclasses.replace(EL9, releases={KERNEL: ""})), "boots /boot/vmlinuz-4.18"),
    "no image": (image(dataclasses.replace(EL9, images=frozenset())), "or one that is not there"),
    "two images": (
        image(dataclasses.replace(EL9, entries={ENTRY: entry(WORDS, initrd=f"/a.img /initramfs-{RELEASE}.img")})),
        "loads 2 initrd images",
    ),
    "other place": (
        image(dataclasses.replace(INSIDE, environments={ENVIRONMENT: f"{BLOCK}\nblsdir=/x\n"}), inside=True),
        "blsdir in GRUB's environment block",
    ),
    "no stub": (image(INSIDE, inside=True), "has no /boot/efi/EFI/*/grub.cfg, by which GRUB finds it"),
    "odd stub": (
        image(
            dataclasses.replace(
                INSIDE_UEFI, configurations={**INSIDE_UEFI.configurations, f"{ON_ESP}/grub.cfg": "configfile (hd0)/x\n"}
            ),
            inside=True,
        ),
        "leads GRUB to it in an unknown way",
    ),
    "no editenv": (image(EL8, present=PRESENT - {bootloader.ENTERPRISE.editenv}), "has no /usr/bin/grub2-editenv"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_with_its_reason(name: str) -> None:
    found, reason = REFUSED[name]
    with pytest.raises(CryptpilotError, match="cannot be converted: ") as refusal:
        changed(found)
    assert reason in refusal.value.what


def test_a_unified_kernel_image_is_not_known_there() -> None:
    found = image(EL9)
    with pytest.raises(CryptpilotError, match="for GRUB as Debian has it"):
        plan.make(found, VOLUME, plan.roles(found.table, found.contents), plan.Unified())


@pytest.mark.parametrize(
    ("words", "mended"),
    [
        (WORDS, WORDS.replace(OLD, NEW)),
        ("nfsroot=/a zroot=b rd.root=c", "nfsroot=/a zroot=b rd.root=c"),
        ('ro root="LABEL=my root" quiet', f"ro {NEW} quiet"),
        ("root=/dev/vda1", NEW),
        ("ro\troot=a\troot=b\n", f"ro\t{NEW}\t{NEW}\n"),
        ("$kernelopts $tuned_params", "$kernelopts $tuned_params"),
    ],
)
def test_only_the_root_of_kernel_parameters_is_another_one(words: str, mended: str) -> None:
    assert grub.command_line(words, VOLUME) == mended


def test_an_environment_block_is_read_as_grub_reads_it() -> None:
    assert bls.environment(BLOCK)["kernelopts"] == WORDS
    assert bls.environment("# x\na=one\\\ntwo\nb=c\\\\d\n####") == {"a": "one\ntwo", "b": "c\\d"}
    assert bls.environment("#" * 1024) == {}


def write(root: Root, loader: Loader) -> None:
    """Lay out what GRUB reads in a root."""
    for path, text in {**loader.configurations, **loader.entries, **loader.environments}.items():
        root.write(path, text.encode(), 0o600)
    for path in (*loader.releases, *loader.images):
        root.write(path, path.encode() if "rescue" not in path else KERNEL.encode(), 0o600)
    if loader.command_line:
        root.write(bls.COMMAND_LINES[0], loader.command_line.encode(), 0o644)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


@pytest.mark.parametrize(
    "loader", [EL8, EL9, EL8_UEFI, INSIDE_UEFI, RESCUED, CLASSIC], ids=["8", "9", "8 UEFI", "inside", "rescue", "7"]
)
def test_what_grub_reads_is_read_from_an_image(root: Root, loader: Loader) -> None:
    write(root, loader)
    assert loading.read(root, [RELEASE]) == loader


def test_a_link_to_the_efi_system_partition_is_followed_and_what_is_there_twice_is_one(root: Root) -> None:
    write(root, EL8_UEFI)
    (root.path / "boot/grub2").mkdir()
    (root.path / "boot/grub2/grubenv").symlink_to(f"../efi/EFI/{ON_ESP.rpartition('/')[2]}/grubenv")
    (root.path / "boot/grub").symlink_to("grub2")
    assert loading.read(root, [RELEASE]) == EL8_UEFI


def test_the_parameters_of_later_kernels_may_come_with_the_distribution(root: Root) -> None:
    root.write(bls.COMMAND_LINES[1], b"root=/dev/a ro\n", 0o644)
    assert loading.read(root, []).command_line == "root=/dev/a ro\n"


@dataclasses.dataclass
class Tools:
    """Stands in for the programs of a root: notes what is run, and has grub2-mkconfig spoil all that it may."""

    root: Root
    ran: list[str] = dataclasses.field(default_factory=list)

    def run(self, argv: Sequence[str]) -> str:
        """Do what a program does to files, as far as it matters."""
        self.ran.append(" ".join(argv))
        name = argv[0].rpartition("/")[2]
        if name == "grub2-mkconfig":
            self.root.write(argv[2], configuration().replace(ROOT_UUID, "11111111-2222").encode(), 0o600)
            spoiled = re.sub(r"(?m)^(options +).*$", r"\1root=/dev/loop0p1 ro", self.root.text(ENTRY))
            self.root.write(ENTRY, spoiled.encode(), 0o600)  # as releases before 9.3 do it, and write another file
            if not self.root.has(bls.COMMAND_LINES[0]):
                self.root.write(bls.COMMAND_LINES[0], b"root=/dev/mapper/root ro\n", 0o644)
        if name == "grub2-editenv":
            variable, _, value = argv[3].partition("=")
            lines = [line for line in self.root.text(argv[1]).split("\n") if not line.startswith(f"{variable}=")]
            self.root.write(argv[1], "\n".join([lines[0], f"{variable}={value}", *lines[1:]]).encode(), 0o600)
        if name == "cp":
            self.root.write(argv[-1], self.root.place(argv[-2]).read_bytes(), 0o600)
        return ""


CASES = {
    "8": (image(EL8), EL8),
    "9": (image(EL9), EL9),
    "8 UEFI": (image(EL8_UEFI), EL8_UEFI),
    "rescue": (image(RESCUED), RESCUED),
    "inside": (image(INSIDE, inside=True, uefi=False), INSIDE),
    "inside UEFI": (image(INSIDE_UEFI, inside=True), INSIDE_UEFI),
}


@pytest.mark.parametrize("name", CASES)
def test_the_boot_loader_of_a_root_is_changed_as_was_decided(
    name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, loader = CASES[name]
    write(root, loader)
    root.write("/etc/default/grub", b'GRUB_CMDLINE_LINUX="quiet"', 0o644)
    made = changed(found)
    tools = Tools(root)
    monkeypatch.setattr(Root, "run", lambda _, argv: tools.run(argv))
    loading.set_root(root, made, VOLUME)
    loading.change(root, made, VOLUME, "/dev/loop0", "11111111-2222")
    now = loading.read(root, [RELEASE])
    assert {one.value("root") for one in bls.kernels(now)} == {"/dev/mapper/root"}
    assert now.command_line == loader.command_line.replace(OLD, NEW)
    assert all(OLD not in text for text in [*now.entries.values(), *now.environments.values(), now.command_line])
    assert root.text("/etc/default/grub").startswith('GRUB_CMDLINE_LINUX="quiet"\n\n# Written by cryptpilot convert')
    assert "GRUB_DEVICE=/dev/mapper/root\n" in root.text("/etc/default/grub")
    moved = name.startswith("inside")
    assert any("grub2-mkconfig" in line for line in tools.ran) == moved
    assert ("grub2-install --target=i386-pc /dev/loop0" in tools.ran) == moved
    if moved:
        for text in [*now.configurations.values(), *now.entries.values()]:
            assert ROOT_UUID not in text
            assert "/boot/" not in text
    if name == "rescue":
        assert root.text(RESCUE_IMAGE) == root.text(IMAGE)


def test_a_boot_loader_that_keeps_another_root_is_an_error(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment block that stays as it was, whatever the program said of it."""
    write(root, EL8)
    monkeypatch.setattr(Root, "run", lambda *_: "")
    with pytest.raises(CryptpilotError, match=f"{ENTRY} boots a kernel with the root UUID={ROOT_UUID}"):
        loading.change(root, changed(image(EL8)), VOLUME, "/dev/loop0", "")
