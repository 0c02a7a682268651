"""What a boot stage has to do, and what its image needs for that. Pure: tested without root or a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

from cryptpilot_boot.boot import parameters
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.providers import table
from cryptpilot_boot.system import kernel_parameters, mkfs
from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptpilot_boot.config import Config, Volume

T = TypeVar("T")

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
# loop, dmsetup, modprobe: for a cryptsetup that takes no header as a file then, see system.composite.
_INTEGRITY_MODULES = ("dm_integrity", "authenc", "hmac", "loop")
_INTEGRITY_PROGRAMS = ("dmsetup", "modprobe")
_PROGRAMS = ("cryptsetup", "blkid")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One stage's work.

    needed: names of the volumes without which the stage's boot cannot go on. timeout: seconds for all of it.
    next_stage: whether a stage follows, to which a volume can be deferred. late_after: seconds after which one that is
    not needed is deferred; None if no stage follows.
    ask: whether a person is asked on the console for a key that does not come. complaints: what on the kernel command
    line is invalid, a sentence each.
    """

    stage: str
    volumes: tuple[Volume, ...]
    needed: frozenset[str]
    timeout: int
    verbose: bool
    late_after: int | None = None
    next_stage: bool = False
    ask: bool = False
    complaints: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ImageNeeds:
    """What an initrd must carry to open its volumes; by default, one that opens none.

    programs: by name, or by path for a command that is configured so. files: paths of what else its sources of keys
    are asked with. drivers: modules that go in if there are such. units: services that start with the agent.
    authorities: whether the system's public CAs. shell: whether it may give a root shell when a boot cannot go on.
    ask: whether it is to ask a person on the console.
    """

    shell: bool = True
    configuration: tuple[Path, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    network: bool = False
    authorities: bool = False
    ask: bool = False


def plan(config: Config, stage: str, kernel_command_line: str, only: Sequence[str] = ()) -> Plan:
    """Decide what a stage opens. only: names of volumes in place of those that the kernel command line may name."""
    said = parameters.parse(kernel_command_line, initrd=stage == "initrd")
    mine = initrd_volumes(config) if stage == "initrd" else auto_open(config)
    unknown = [name for name in said.volumes if name not in {volume.volume for volume in mine}]
    # an unknown name must not keep a machine from booting
    only = only or [name for name in said.volumes if name not in unknown]
    volumes = tuple(volume for volume in mine if not only or volume.volume in only) if said.on else ()
    names = {volume.volume for volume in volumes}
    boot = config.boot
    return Plan(
        stage=stage,
        volumes=volumes,
        needed=frozenset(pivot_volumes(kernel_command_line) & names if stage == "initrd" else ()),
        timeout=_either(said.timeout, boot.timeout),
        verbose=_either(said.verbose, boot.verbose),
        late_after=_either(said.late_after, boot.late_after) if stage == "initrd" else None,
        next_stage=stage == "initrd",
        ask=_either(said.ask, boot.ask),
        complaints=parameters.bounded(
            (
                *said.complaints,
                *(f'kernel parameter names "{parameters.shown(name)}", no auto_open volume' for name in unknown),
            )
        ),
    )


def _either(said: T | None, configured: T) -> T:
    """Return what the kernel command line says, else what the configuration does."""
    return configured if said is None else said


def refusal(one: Volume, stage: str, kernel_command_line: str) -> CryptpilotError:
    """Say why a volume that was named is not among what a stage opens."""
    name = one.volume
    by_hand = f"open it by hand: cryptpilot open {name}"
    if not parameters.parse(kernel_command_line, initrd=stage == "initrd").on:
        return CryptpilotError(f'volume "{name}" is not opened: the kernel command line says cryptpilot=no', by_hand)
    key = "initrd = true" if one.auto_open else "auto_open = true"
    return CryptpilotError(
        f'volume "{name}" is not opened by the {stage} stage: its file does not say "{key}"',
        f"say so in {one.source}, or {by_hand}",
    )


def auto_open(config: Config) -> tuple[Volume, ...]:
    """Return the volumes that are opened at boot."""
    return tuple(volume for volume in config.volumes if volume.auto_open)


def initrd_volumes(config: Config) -> tuple[Volume, ...]:
    """Return the volumes that are opened in the initrd, and that its image has to carry."""
    return tuple(volume for volume in auto_open(config) if volume.initrd)


def pivot_volumes(kernel_command_line: str) -> frozenset[str]:
    """Return the names below /dev/mapper that `root=` and `mount.usr=` name: the pivot needs them."""
    values = kernel_parameters.values(kernel_command_line)
    names = (fstab.mapper_name(values.get(key, "")) for key in ("root", "mount.usr"))
    return frozenset(name for name in names if name)


def early_mounts(text: str, kernel_command_line: str) -> dict[str, str]:
    """Return what is mounted before the pivot beside the root: sources by mount point.

    text: the root's fstab; systemd and dracut look there for /usr and for x-initrd.mount.
    """
    entries = [entry for entry in fstab.parse(text) if not {"noauto", "nofail"} & set(entry.options)]
    early = [entry for entry in entries if entry.where == "/usr" or "x-initrd.mount" in entry.options]
    found = {entry.where: entry.source for entry in early if entry.where not in ("/", "none")}
    usr = kernel_parameters.values(kernel_command_line).get("mount.usr")
    return {**found, "/usr": usr} if usr else found


def before_network(text: str, volumes: Sequence[Volume], resolve: Callable[[str], str] = lambda path: path) -> set[str]:
    """Return which volumes have their key over the network, and are needed by systemd before there may be one.

    Required ones are, wherever they are mounted: local-fs.target waits for them. text: the root's fstab. resolve: see
    fstab.parse. The initrd is where they have to be opened.
    """
    entries = fstab.parse(text, resolve)
    required = fstab.needed_for(entries, [one.volume for one in volumes if one.required])
    early = {entry.mapper_name for entry in [*fstab.before_network(entries), *required]}
    return {one.volume for one in volumes if one.needs_network and one.volume in early}


def image_needs(config: Config) -> ImageNeeds:
    """Decide what goes into the initrd: for the volumes it opens, and for no others."""
    volumes = initrd_volumes(config)
    if not volumes:
        return ImageNeeds()
    identities = (volume.identity.source for volume in volumes if volume.identity)
    makers = sorted({mkfs.KINDS[v.makefs].command[0] for v in volumes if v.temporary and v.makefs})
    sources = [table.of(one).needs(one) for v in volumes for one in v.sources]
    further = tuple(dict.fromkeys(name for one in sources for name in one.modules))
    integrity = any(v.integrity for v in volumes)
    programs = _PROGRAMS + (_INTEGRITY_PROGRAMS if integrity else ())
    return ImageNeeds(
        # Whether it carries credentials or not: in a shell anyone has what a provider gives this machine.
        shell=config.boot.emergency_shell,
        configuration=(config.directory / "global.toml", *(volume.source for volume in volumes), *identities),
        programs=(*programs, *makers, *_all(one.programs for one in sources)),
        files=_all(one.files for one in sources),
        modules=_MODULES + (_INTEGRITY_MODULES if integrity else ()) + further,
        drivers=_all(one.drivers for one in sources),
        units=_all(one.units for one in sources),
        network=any(one.network for one in sources),
        authorities=any(one.authorities for one in sources),
        # what a one-time password protects has no key that a person could know
        ask=config.boot.ask and not all(volume.temporary for volume in volumes),
    )


def _all(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the names of all groups, sorted, each once."""
    return tuple(sorted({name for group in names for name in group}))
