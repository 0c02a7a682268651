"""Whether an image is whole: all that is needed to open its volumes is in it, and runs."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.images import agent, kernel_modules, record, remedy, startup
from cryptpilot_boot.images.image import below, dracut_modules, is_there, kernel_parameters
from cryptpilot_boot.images.remedy import REBUILD, Finding
from cryptpilot_boot.system import dracut, init, mkfs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptpilot_boot.images.agent import Requirements
    from cryptpilot_boot.images.image import UnpackedImage

_PRIVATE = 0o600  # a file may hold a client key
_COMMAND = "/usr/bin/cryptpilot"
_NETWORK_MODULES = ("network", "systemd-networkd")
# Programs that are executables and not scripts: the loader can check their libraries.
_OPENERS = {"cryptsetup", "blkid", *(str(kind.command[0]) for kind in mkfs.KINDS.values())}


def findings(image: UnpackedImage) -> Iterator[Finding]:
    """Yield the faults of an image that was unpacked as a whole and has the agent.

    If the agent does not run, the facts that only it knows are left out. Raises Interrupted.
    """
    tree = image.tree
    yield from agent.damaged(tree)
    yield from agent.libraries_missing(tree)
    yield from _other_configuration(image)
    try:
        dracut.run_within(tree, [_COMMAND, "--version"])
    except ProgramError as error:
        yield Finding(f"the agent does not run in it: {error.what}", REBUILD)
        return
    try:
        needs = agent.parse_requirements(dracut.run_within(tree, [_COMMAND, "initrd", "plan"]))
    except ProgramError as error:
        yield Finding(
            f"the agent in it cannot use the configuration in it: {error.what}",
            f"see what is wrong with this machine's: cryptpilot config check; then {REBUILD}",
        )
        return
    if not needs.programs:
        yield Finding("the agent is in it, but no configuration of a volume that it has to open", REBUILD)
    yield from _programs_missing(tree, needs)
    yield from _files_missing(tree, needs)
    yield from kernel_modules.missing(tree, needs.modules)
    yield from kernel_modules.disabled(tree, needs.modules, init.kernel_command_line())
    yield from units_missing(tree, needs)
    yield from _exposed(tree, needs)
    yield from startup.not_started(tree)
    yield from startup.not_shut_down(tree)
    if needs.network:
        yield from _network_missing(tree)
    if needs.no_shell:
        yield from startup.shell_given(tree)
    if needs.ask:
        yield from startup.cannot_ask(tree)


def claimed(tree: Path, ours: Mapping[str, str]) -> Iterator[Finding]:
    """Yield which volumes dracut's module for LUKS disks would open too, in an image unpacked at `tree`.

    ours: names of volumes by the UUIDs of their headers.
    """
    for uuid, volume in ours.items():
        if f"rd.luks.uuid=luks-{uuid}" in kernel_parameters(tree):
            yield Finding(
                f"dracut also opens the volume {volume}, and waits for it or for a password",
                remedy.disk_claimed(f"rd.luks.uuid=luks-{uuid}"),
            )


def units_missing(tree: Path, needs: Requirements) -> Iterator[Finding]:
    """Find services that serve keys and are not in the image, do not start with the agent, or cannot run."""
    for unit in needs.units:
        path = tree / startup.UNIT_DIRECTORY / unit
        if not path.is_file():
            yield Finding(f"the service {unit} is missing", remedy.unit_missing(unit))
            continue
        if not (tree / startup.UNIT_DIRECTORY / f"{startup.UNIT}.d" / f"{unit}.conf").is_file():
            yield Finding(f"the service {unit} is not enabled, so nothing starts it", REBUILD)
        started = re.findall(r"^ExecStart[ \t]*=[ \t]*[-@:+!]*(\S+)", path.read_text(errors="replace"), re.MULTILINE)
        for program in started:
            if not is_there(tree, program):
                yield Finding(f"the program {program} of {unit} is missing", remedy.program_missing(program))


def _other_configuration(image: UnpackedImage) -> Iterator[Finding]:
    for path, value in image.record.configuration.items() if image.record else ():
        found = record.digest(below(image.tree, path))
        if found != value:
            yield Finding(f"{path} {'in it was changed' if found else 'is missing'}", REBUILD)


def _programs_missing(tree: Path, needs: Requirements) -> Iterator[Finding]:
    for program in needs.programs:
        places = [program] if program.startswith("/") else [f"/{place}/{program}" for place in startup.PROGRAM_PLACES]
        if not any(is_there(tree, place) for place in places):
            yield Finding(f"the program {program} is missing", remedy.program_missing(program))
        elif program in _OPENERS:
            try:
                dracut.require_libraries(tree, program)
            except ProgramError as error:
                hint = REBUILD if _starts_here(program) else remedy.program_broken(program)
                yield Finding(f"the program {program} does not start in it: {error.what}", hint)


def _starts_here(program: str) -> bool:
    try:
        dracut.require_libraries(Path("/"), program)
    except ProgramError:
        return False
    return True


def _files_missing(tree: Path, needs: Requirements) -> Iterator[Finding]:
    for path in needs.files:
        if not is_there(tree, path):
            yield Finding(f"{path} is missing; the key of a volume needs it", REBUILD)


def _exposed(tree: Path, needs: Requirements) -> Iterator[Finding]:
    for path in needs.configuration:
        mode = stat.S_IMODE(below(tree, path).stat().st_mode)
        if mode != _PRIVATE:
            yield Finding(f"{path} in the image has mode {mode:04o}, not {_PRIVATE:04o}", REBUILD)


def _network_missing(tree: Path) -> Iterator[Finding]:
    if "rd.neednet=1" not in kernel_parameters(tree):
        yield Finding("the key of a volume comes over the network, but the image requests no network", REBUILD)
    if not any(name.startswith(_NETWORK_MODULES) for name in dracut_modules(tree)):
        yield Finding(
            "the key of a volume comes over the network, but nothing in the image brings a network up",
            remedy.network_missing(),
        )
