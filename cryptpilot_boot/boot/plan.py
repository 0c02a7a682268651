"""What a boot stage has to do, and what its image needs for that. Pure: tested without root or a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.config import Exec
from cryptpilot_boot.system import mkfs

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config, Volume

STAGES = ("initrd", "system")

# Kernel modules, each named: the image gets no whole directory of them. algif_*: cryptsetup asks the kernel for the
# cipher of the header's key slots. Modules a kernel has built in are no error to dracut.
_MODULES = (
    "dm_crypt",
    "aes",
    "aes_generic",
    "aesni_intel",
    "aes_arm64",
    "aes_ce_blk",
    "xts",
    "ecb",
    "sha256",
    "sha256_generic",
    "algif_hash",
    "algif_skcipher",
)
_INTEGRITY_MODULES = ("dm_integrity", "authenc", "hmac")
_PROGRAMS = ("cryptsetup", "blkid")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One stage's work.

    needed: names of the volumes without which the stage's boot cannot go on.
    """

    stage: str
    volumes: tuple[Volume, ...]
    needed: frozenset[str]
    timeout: int
    verbose: bool


@dataclasses.dataclass(frozen=True)
class ImageNeeds:
    """What an initrd must carry to open its volumes.

    programs: by name, or by path for a command that is configured so.
    """

    configuration: tuple[Path, ...]
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    network: bool


def plan(config: Config, stage: str, kernel_command_line: str) -> Plan:
    """Decide what a stage opens."""
    volumes = auto_open(config)
    names = {volume.volume for volume in volumes}
    needed = pivot_volumes(kernel_command_line) & names if stage == "initrd" else frozenset()
    return Plan(stage, volumes, frozenset(needed), config.boot.timeout, config.boot.verbose)


def auto_open(config: Config) -> tuple[Volume, ...]:
    """Return the volumes that are opened at boot."""
    return tuple(volume for volume in config.volumes if volume.auto_open)


def pivot_volumes(kernel_command_line: str) -> frozenset[str]:
    """Return the names below /dev/mapper that `root=` and `mount.usr=` name: the pivot needs them.

    Of several such words the last one counts, as it does to dracut.
    """
    prefix = "/dev/mapper/"
    last = dict(word.partition("=")[::2] for word in kernel_command_line.split())
    values = (last.get(key, "").strip('"') for key in ("root", "mount.usr"))
    return frozenset(value[len(prefix) :] for value in values if value.startswith(prefix))


def image_needs(config: Config) -> ImageNeeds:
    """Decide what goes into the initrd: for the volumes it opens, and for no others."""
    volumes = auto_open(config)
    global_file = config.directory / "global.toml"
    makers = sorted({mkfs.KINDS[v.makefs].command[0] for v in volumes if v.temporary and v.makefs})
    commands = sorted({v.encrypt.command for v in volumes if isinstance(v.encrypt, Exec)})
    modules = _MODULES + (_INTEGRITY_MODULES if any(v.integrity for v in volumes) else ())
    return ImageNeeds(
        configuration=(global_file, *(volume.source for volume in volumes)) if volumes else (),
        programs=(*_PROGRAMS, *makers, *commands) if volumes else (),
        modules=modules if volumes else (),
        network=any(volume.needs_network for volume in volumes),
    )
