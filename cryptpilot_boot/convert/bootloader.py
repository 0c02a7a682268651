"""What is done to an image's boot loader for its root to be a volume. Pure.

Two forms of GRUB are supported: Debian's, and that of Enterprise Linux and its relatives. In the latter, kernel
parameters are corrected in the files that hold them. grubby is not used: its effect on `kernelopts`, /etc/default/grub
and /etc/kernel/cmdline differs between releases, and the first ones put a second `root=` behind `$kernelopts`.
grub2-mkconfig is avoided: before 9.3 it overwrites the parameters of all entries with those of /etc/default/grub.

Source: grubby-bls, in its versions of 2018 and 2019; insights-core, issue 2041 (grubby and grubenv); grub2, pull
request 126 (grub2-mkconfig --update-bls-cmdline); cockpit, pull request 18382; lxc-ci, pull request 979.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import bls, grub
from cryptpilot_boot.convert.facts import Loader, refused
from cryptpilot_boot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import InstalledDisk, InstalledSystem, Roles

ESP_CONFIGURATIONS = "/boot/efi/EFI"
"""The places where a distribution has its own directory, with grub.cfg and perhaps grubenv."""


@dataclasses.dataclass(frozen=True)
class Grub:
    """The GRUB of a distribution.

    directory: what it reads in /boot; mkconfig, install, editenv: its programs. settings: what is to hold ours for
    mkconfig; own: whether nothing else is in that file. signed: whether packages bring its programs for UEFI, signed.
    Such programs are never made on the machine, and read the grub.cfg beside them.
    """

    directory: str
    mkconfig: str
    install: str
    editenv: str
    settings: str
    own: bool
    signed: bool

    @property
    def configuration(self) -> str:
        """Return where its configuration is, but for older releases with UEFI."""
        return f"{self.directory}/grub.cfg"


# Source: the packages grub-common and grub2-common of Debian 12; grub2.spec of Enterprise Linux 8 and 9: only Debian's
# grub-mkconfig reads /etc/default/grub.d in all releases.
DEBIAN = Grub(
    directory="/boot/grub",
    mkconfig="/usr/sbin/grub-mkconfig",
    install=grub.INSTALL,
    editenv="/usr/bin/grub-editenv",
    settings="/etc/default/grub.d/90-cryptpilot.cfg",
    own=True,
    signed=False,
)
ENTERPRISE = Grub(
    directory="/boot/grub2",
    mkconfig="/usr/sbin/grub2-mkconfig",
    install="/usr/sbin/grub2-install",
    editenv="/usr/bin/grub2-editenv",
    settings="/etc/default/grub",
    own=False,
    signed=True,
)
GRUBS = (ENTERPRISE, DEBIAN)
SETTINGS = "/etc/default/grub"
LOOKED_FOR = (
    *(SETTINGS, bls.DIRECTORY),
    *(path for one in GRUBS for path in (one.directory, one.mkconfig, one.install, one.editenv)),
)


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done, in this order.

    booting: the configurations that boot something, and do not only lead to others. install: commands, {disk} for the
    whole disk. generated: configurations that are made by mkconfig. old: what GRUB read before. Those of its texts that
    are not generated get corrected, see `mended`. copies: which image replaces another one, by the other's path. uuid:
    of the file system of the root; moved: whether /boot leaves it.
    """

    grub: Grub
    booting: tuple[str, ...]
    install: tuple[tuple[str, ...], ...]
    generated: tuple[str, ...]
    old: Loader
    copies: Mapping[str, str]
    uuid: str
    moved: bool

    @property
    def uses_esp(self) -> bool:
        """Return whether the EFI system partition has to be there for it."""
        paths = [*self.old.configurations, *self.old.environments] if self.reads_entries or self.moved else []
        return bool(self.install) or any(path.startswith(ESP_CONFIGURATIONS) for path in (*paths, *self.generated))

    def leads(self, path: str) -> bool:
        """Tell whether a configuration is on the EFI system partition, and leads to one in /boot."""
        return path.startswith(ESP_CONFIGURATIONS) and path not in self.booting

    @property
    def reads_entries(self) -> bool:
        """Return whether there are boot loader entries that GRUB reads."""
        return any(map(bls.are_read, self.old.configurations.values()))


def chosen(system: InstalledSystem) -> Grub:
    """Return the GRUB that a system has. Raises CryptpilotError for none that is known."""
    for one in GRUBS:
        if one.directory in system.present:
            return one
    known = " nor ".join(one.directory for one in reversed(GRUBS))
    raise refused(f"{system.name} in it has neither {known}", "only GRUB is supported")


def change(found: InstalledDisk, loaders: Roles, volume: Volume, *, moved: bool) -> Change:
    """Decide what is done. moved: whether /boot leaves the root. Raises CryptpilotError when that is not known."""
    system, loader = found.system, found.system.loader
    one = chosen(system)
    booting = {path: text for path, text in loader.configurations.items() if bls.are_read(text) or grub.kernels(text)}
    if not booting:
        raise refused(f"neither {one.configuration} in it boots Linux, nor a grub.cfg on the EFI system partition")
    reads_entries = any(map(bls.are_read, booting.values()))
    generated = tuple(path for path, text in booting.items() if moved or not bls.are_read(text))
    made = Change(
        grub=one,
        booting=tuple(booting),
        install=_install(one, system, loaders) if moved else (),
        generated=generated,
        old=loader,
        copies=_copies(system) if reads_entries else {},
        uuid=found.contents[system.root].uuid,
        moved=moved,
    )
    _require_tools(made, system)
    if moved:
        _require_movable(made, system, loaders)
    if reads_entries:
        wrong = faults(mended(made, volume, "new"), volume, made.booting, generated)
        if wrong:
            raise refused(f"boot loader entries cannot be corrected: {wrong[0]}", f"see {bls.DIRECTORY} in it")
    elif bls.DIRECTORY in system.present and one is DEBIAN:
        raise refused(f"{system.name} in it has {bls.DIRECTORY}, and GRUB does not read it", "only GRUB is supported")
    return made


def mended(made: Change, volume: Volume, boot: str) -> Loader:
    """Return what GRUB is to read where nothing generates it. boot: UUID of the file system of /boot, if it moved."""
    old = made.old
    configurations = {path: bls.configuration(text, volume) for path, text in old.configurations.items()}
    if made.moved and made.grub.signed:
        led = {path: grub.led_to(text, made.uuid, boot) for path, text in configurations.items() if made.leads(path)}
        configurations |= {path: text for path, text in led.items() if text}
    entries, environments = old.entries, old.environments
    if made.reads_entries:
        entries = {path: bls.entry(text, volume, moved=made.moved) for path, text in entries.items()}
        environments = {path: bls.block(text, volume) for path, text in environments.items()}
    command_line = grub.command_line(old.command_line, volume)
    return dataclasses.replace(
        old, configurations=configurations, entries=entries, environments=environments, command_line=command_line
    )


def resumes(loader: Loader) -> bool:
    """Tell whether a kernel has a device to resume from after hibernation."""
    booted = [one for text in loader.configurations.values() for one in grub.kernels(text)] + bls.kernels(loader)
    return any(one.value("resume") is not None for one in booted)


def faults(loader: Loader, volume: Volume, paths: Sequence[str], generated: Sequence[str] = ()) -> list[str]:
    """Return each entry that boots another root than the volume, or no initrd, or one that waits for a lost device.

    paths: of the configurations that are to boot; generated: of those whose own text does not matter.
    """
    said = []
    for path in paths:
        text = loader.configurations.get(path, "")
        booted = [] if path in generated else [(path, one) for one in grub.kernels(text)]
        if bls.are_read(text):
            booted += [
                (name, bls.linux(entry, one)) for name, entry in loader.entries.items() for one in bls.variables(loader)
            ]
        systems = [(name, one) for name, one in booted if one.is_system]
        said += [
            f"{printable(name)} boots a kernel with the root {printable(root)}, not with {volume.mapper_path} from"
            " its initrd"
            for name, one in systems
            for root in grub.wrong([one], volume)
        ]
        said += [
            f"{printable(name)} makes an initrd wait for {what} ({parameter}=), which is gone"
            for name, one in systems
            for parameter, what in grub.GONE.items()
            if one.value(parameter) is not None
        ]
        said += [] if systems or (path in generated and not bls.are_read(text)) else [f"{path} boots no Linux"]
    return said


def _install(one: Grub, system: InstalledSystem, loaders: Roles) -> tuple[tuple[str, ...], ...]:
    """Return the commands that install GRUB; what is signed is left alone, and finds /boot by its grub.cfg."""
    places = dataclasses.replace(loaders, esp=None) if one.signed else loaders
    return grub.install_commands(system, places, one.install)


def _require_tools(made: Change, system: InstalledSystem) -> None:
    one = made.grub
    needed = [one.mkconfig, SETTINGS] if made.generated else []
    needed += [one.editenv] if made.reads_entries and any(made.old.environments.values()) else []
    for path in needed:
        if path not in system.present:
            raise refused(f"{system.name} in it has no {path}", "only GRUB as distributions install it is supported")


def _require_movable(made: Change, system: InstalledSystem, loaders: Roles) -> None:
    """Raise CryptpilotError where GRUB would look for a /boot that has moved in its old place."""
    old = made.old
    if any(bls.PLACE in bls.environment(block) for block in old.environments.values()):
        raise refused(f"/boot has to move, and {bls.PLACE} in GRUB's environment block says where its entries are")
    if not made.grub.signed or loaders.esp is None:
        return
    if not any(path.startswith(ESP_CONFIGURATIONS) for path in old.configurations):
        raise refused(
            f"/boot has to move, and {system.name} in it has no {ESP_CONFIGURATIONS}/*/grub.cfg, by which GRUB"
            " finds it",
            "give the image a /boot of its own first",
        )
    for path, text in old.configurations.items():
        if made.leads(path) and grub.led_to(text, made.uuid, "new") is None:
            raise refused(
                f"/boot has to move, and {printable(path)} leads GRUB to it in an unknown way",
                "give the image a /boot of its own first",
            )


def _copies(system: InstalledSystem) -> dict[str, str]:
    """Return the images that take the place of others: a rescue entry has a copy of a kernel, and an image of it.

    Source: 51-dracut-rescue.install of dracut; that image is made without cryptpilot, for any machine, as ours are.
    """
    loader = system.loader
    images = {one.release: f"/{one.images[0]}" for one in system.kernels if one.images}
    copies = {}
    for path, text in loader.entries.items():
        kernel = bls.kernel_file(text)
        release = loader.releases.get(kernel, "")
        if release not in images:
            raise refused(
                f"{printable(path)} in it boots {printable(kernel)}, which is not an installed kernel",
                "remove the entry",
            )
        for known in bls.variables(loader):
            loaded = bls.initrds(text, known)
            if len(loaded) != 1 or loaded[0] not in loader.images:
                raise refused(
                    f"{printable(path)} in it loads {len(loaded) or 'no'} initrd images, or one that is not there",
                    "each entry must load one; remove the entry if it boots nothing",
                )
            if loaded[0] != images[release]:
                copies[loaded[0]] = images[release]
    return copies
