"""Whether an image is whole: all that is to open its volumes is in it, and runs.

An image is looked at unpacked, below a directory. What is wrong is a CryptpilotError each, in words for a person.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.images import kernel_modules, record, remedy
from cryptpilot_boot.images.remedy import REBUILD
from cryptpilot_boot.system import dracut, init, mkfs, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptpilot_boot.images.record import Record

# The paths of all that is put into an image for cryptpilot and for nobody else, as cpio(1) has it.
_OURS = "*cryptpilot*"
_OUR_SIZE = 128 << 20  # bytes that will do for them
_EXPANSION = 6  # times an image may grow when it is unpacked: xz and the like leave a quarter
_PRIVATE = 0o600  # a file may hold a client key
_COMMAND = "/usr/bin/cryptpilot"
_UNIT = "cryptpilot-initrd.service"
_UNIT_DIRECTORY = "etc/systemd/system"
_WANTS = f"{_UNIT_DIRECTORY}/initrd.target.wants/{_UNIT}"
_UNIT_PLACES = ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system")
_SYSTEMD_PLACES = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
# Units that waited for a device for good, and the shutdown for them: see initrd_hooks/cryptpilot-shutdown.conf.
_WAITING_UNITS = ("systemd-fsck-root", "systemd-fsck@", "systemd-makefs@", "systemd-mkswap@", "systemd-growfs@")
_SHUTDOWN = "etc/systemd/system/{unit}.service.d/cryptpilot-shutdown.conf"
# What asks a person for a key on the console where the image has systemd.
_ASK_PROGRAMS = ("systemd-ask-password", "systemd-tty-ask-password-agent")
_ASK_UNITS = ("systemd-ask-password-console.path", "systemd-ask-password-console.service")
_ASK_WANTS = f"sysinit.target.wants/{_ASK_UNITS[0]}"
_HOOKS = "lib/dracut/hooks/*/*cryptpilot-start.sh"
_NO_SHELL = "usr/bin/cryptpilot-no-shell"
_NO_SHELL_HOOKS = "lib/dracut/hooks/*/*cryptpilot-emergency.sh"
_LIBRARY_PLACES = ("usr/lib*", "usr/lib*/*", "lib*", "lib*/*")
_PROGRAM_PLACES = ("usr/sbin", "usr/bin", "sbin", "bin")
_NETWORK_MODULES = ("network", "systemd-networkd")
_CRASH_MODULES = ("kdumpbase", "kdump")
# Programs that are known to be nothing but programs: the loader may be asked about them.
_OPENERS = {"cryptsetup", "blkid", *(str(kind.command[0]) for kind in mkfs.KINDS.values())}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the agent in an image says the image must have: `cryptpilot initrd plan`, run there."""

    configuration: tuple[str, ...]
    programs: tuple[str, ...]
    files: tuple[str, ...]
    modules: tuple[str, ...]
    units: tuple[str, ...]
    network: bool
    no_shell: bool = False
    ask: bool = False


@dataclasses.dataclass(frozen=True)
class Content:
    """What an image has of ours, unpacked at `tree`.

    record: None when it was left by no version of cryptpilot that leaves one. size: bytes, uncompressed.
    """

    tree: Path
    has_agent: bool
    record: Record | None
    size: int


def rebuild_command(kernel: str) -> str:
    """Return what to type to have the images of a kernel rebuilt."""
    option = "" if kernel == dracut.running_kernel() else f" --kernel {kernel}"
    return f"cryptpilot initrd rebuild{option}"


def remake_command(path: Path, kernel: str) -> str:
    """Return what to type to have an image of a kernel rebuilt, which may be a unified one."""
    if dracut.is_unified(path):
        return f"kernel-install add {kernel} {dracut.kernel_file(kernel)}"
    return rebuild_command(kernel)


@contextlib.contextmanager
def unpacked(image: Path, *, everything: bool) -> Iterator[Content]:
    """Unpack an image for as long as it takes to look at it; everything: not only what is ours.

    Raises CryptpilotError when it cannot be unpacked, or its record cannot be read.
    """
    needed = image.stat().st_size * _EXPANSION if everything else _OUR_SIZE
    with workplace.private_directory(needed, in_memory=True) as place:
        tree = place / "tree"
        tree.mkdir(mode=0o700)
        dracut.unpack(image, tree, "" if everything else _OURS)
        bundle = _below(tree, record.BUNDLE)
        text = bundle / record.RECORD
        yield Content(
            tree,
            has_agent=(bundle / "cryptpilot").exists(),
            record=record.parse(text.read_text(encoding="utf-8")) if text.exists() else None,
            size=sum(path.stat().st_size for path in _ours(tree)),
        )


def _ours(tree: Path) -> Iterator[Path]:
    for path in tree.rglob("*"):
        if "cryptpilot" in str(path.relative_to(tree)) and path.is_file() and not path.is_symlink():
            yield path


def findings(content: Content) -> Iterator[CryptpilotError]:
    """Yield what is wrong with an image that was unpacked as a whole and has the agent.

    Their hints end with REBUILD where that is part of what helps. What only a running agent can tell is left out when
    it does not run. Raises Interrupted.
    """
    tree = content.tree
    yield from _agent_damaged(tree)
    yield from _libraries_missing(tree)
    yield from _other_configuration(content)
    try:
        dracut.run_within(tree, [_COMMAND, "--version"])
    except ProgramError as error:
        yield CryptpilotError(f"the agent does not run in it: {error.what}", REBUILD)
        return
    try:
        plan = _parse_plan(dracut.run_within(tree, [_COMMAND, "initrd", "plan"]))
    except ProgramError as error:
        yield CryptpilotError(
            f"the agent in it cannot use the configuration in it: {error.what}",
            f"see what is wrong with this machine's: cryptpilot config check; then {REBUILD}",
        )
        return
    if not plan.programs:
        yield CryptpilotError("the agent is in it, and the configuration of no volume it is to open", REBUILD)
    yield from _programs_missing(tree, plan)
    yield from _files_missing(tree, plan)
    yield from kernel_modules.missing(tree, plan.modules)
    yield from kernel_modules.disabled(tree, plan.modules, init.kernel_command_line())
    yield from _units_missing(tree, plan)
    yield from _exposed(tree, plan)
    yield from _not_started(tree)
    yield from _not_shut_down(tree)
    if plan.network:
        yield from _network_missing(tree)
    if plan.no_shell:
        yield from _shell_given(tree)
    if plan.ask:
        yield from _asks_nobody(tree)


def claimed(tree: Path, ours: Mapping[str, str]) -> Iterator[CryptpilotError]:
    """Yield which volumes dracut's own module for LUKS disks takes for its own in an image unpacked at `tree`.

    ours: names of volumes by the UUIDs of their headers.
    """
    for uuid, volume in ours.items():
        if f"rd.luks.uuid=luks-{uuid}" in kernel_parameters(tree):
            yield CryptpilotError(
                f"dracut is to open the volume {volume} too, and waits for it or for a password",
                remedy.disk_claimed(f"rd.luks.uuid=luks-{uuid}"),
            )


def kernel_parameters(tree: Path) -> set[str]:
    """Return the kernel parameters that were put into an image."""
    return {word for path in tree.glob("etc/cmdline.d/*.conf") for word in path.read_text().split()}


def bundle_findings(bundle: Path = record.BUNDLE) -> Iterator[CryptpilotError]:
    """Yield what in a frozen agent, by default the installed one, is not as its manifest has it.

    Their hints are for a copy of it in an image.
    """
    entries = _manifest(bundle).get("files")
    if not entries:
        yield CryptpilotError(f"{record.BUNDLE / record.MANIFEST} is missing or damaged", REBUILD)
        return
    for entry in entries:
        found = record.digest(bundle / entry["path"])
        if found != entry["sha256"]:
            what = "was changed" if found else "is missing"
            yield CryptpilotError(f"{record.BUNDLE / entry['path']} {what}", REBUILD)


def _agent_damaged(tree: Path) -> Iterator[CryptpilotError]:
    """Hold the agent in an image against its manifest; a damaged one that is installed would only be copied again."""
    found = list(bundle_findings(_below(tree, record.BUNDLE)))
    hint = remedy.REINSTALL if found and any(True for _ in bundle_findings()) else REBUILD
    for problem in found:
        yield CryptpilotError(problem.what, hint)


def _manifest(bundle: Path) -> dict[str, Any]:
    """Return what the build wrote down of a frozen agent; nothing when that cannot be read."""
    try:
        table: dict[str, Any] = json.loads((bundle / record.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table


def dracut_modules(tree: Path) -> set[str]:
    """Return the names of the dracut modules an image was made of."""
    lists = (tree / place / "lib/dracut/modules.txt" for place in ("usr", ""))
    return {line.strip() for path in lists if path.exists() for line in path.read_text().splitlines() if line.strip()}


def is_for_crash_dump(tree: Path) -> bool:
    """Tell whether an image is the crash kernel's, which opens volumes only if the dump goes to one."""
    return not dracut_modules(tree).isdisjoint(_CRASH_MODULES)


def _below(tree: Path, path: Path | str) -> Path:
    return tree / str(path).lstrip("/")


def _parse_plan(text: str) -> Plan:
    pairs = [line.partition(" ")[::2] for line in text.splitlines()]
    kinds = ("config", "program", "file", "module", "unit")
    configuration, programs, files, modules, units = (
        tuple(value for key, value in pairs if key == kind) for kind in kinds
    )
    needs = (("network", "yes") in pairs, ("shell", "no") in pairs, ("ask", "yes") in pairs)
    return Plan(configuration, programs, files, modules, units, *needs)


def _other_configuration(content: Content) -> Iterator[CryptpilotError]:
    for path, value in content.record.configuration.items() if content.record else ():
        found = record.digest(_below(content.tree, path))
        if found != value:
            yield CryptpilotError(f"{path} {'in it was changed' if found else 'is missing'}", REBUILD)


def _libraries_missing(tree: Path) -> Iterator[CryptpilotError]:
    """Look for what the agent has from the system: only what it imports in the end would show it by running."""
    for name in _manifest(_below(tree, record.BUNDLE)).get("system_libraries", ()):
        if not any(True for place in _LIBRARY_PLACES for _ in tree.glob(f"{place}/{name}")):
            yield CryptpilotError(f"the library {name} is missing, which the agent needs", REBUILD)


def _programs_missing(tree: Path, plan: Plan) -> Iterator[CryptpilotError]:
    for program in plan.programs:
        places = [program] if program.startswith("/") else [f"/{place}/{program}" for place in _PROGRAM_PLACES]
        # a link may lead anywhere in the image: whether it leads to something is for the loader to find out
        if not any(_below(tree, place).is_symlink() or _below(tree, place).exists() for place in places):
            yield CryptpilotError(f"the program {program} is missing", remedy.program_missing(program))
        elif program in _OPENERS:
            try:
                dracut.require_libraries(tree, program)
            except ProgramError as error:
                hint = REBUILD if _starts_here(program) else remedy.program_broken(program)
                yield CryptpilotError(f"the program {program} does not start in it: {error.what}", hint)


def _files_missing(tree: Path, plan: Plan) -> Iterator[CryptpilotError]:
    for path in plan.files:
        if not _below(tree, path).is_symlink() and not _below(tree, path).exists():
            yield CryptpilotError(f"{path} is missing, which a volume's key is asked for with", REBUILD)


def _units_missing(tree: Path, plan: Plan) -> Iterator[CryptpilotError]:
    """Look for services that a key is asked for with: that each is in the image, starts with the agent, and can run."""
    for unit in plan.units:
        path = tree / _UNIT_DIRECTORY / unit
        if not path.is_file():
            yield CryptpilotError(f"the service {unit} is missing", remedy.unit_missing(unit))
            continue
        if not (tree / _UNIT_DIRECTORY / f"{_UNIT}.d" / f"{unit}.conf").is_file():
            yield CryptpilotError(f"the service {unit} is not enabled, so nothing starts it", REBUILD)
        started = re.findall(r"^ExecStart[ \t]*=[ \t]*[-@:+!]*(\S+)", path.read_text(errors="replace"), re.MULTILINE)
        for program in started:
            if not _below(tree, program).is_symlink() and not _below(tree, program).exists():
                yield CryptpilotError(f"the program {program} of {unit} is missing", remedy.program_missing(program))


def _starts_here(program: str) -> bool:
    try:
        dracut.require_libraries(Path("/"), program)
    except ProgramError:
        return False
    return True


def _exposed(tree: Path, plan: Plan) -> Iterator[CryptpilotError]:
    for path in plan.configuration:
        mode = stat.S_IMODE(_below(tree, path).stat().st_mode)
        if mode != _PRIVATE:
            yield CryptpilotError(f"{path} in the image has mode {mode:04o}, not {_PRIVATE:04o}", REBUILD)


def _not_started(tree: Path) -> Iterator[CryptpilotError]:
    """Look for what starts the agent at boot: a unit, or one of dracut's hooks where the image has no systemd."""
    if any((tree / place).exists() for place in _SYSTEMD_PLACES):
        if not any((tree / place / _UNIT).exists() for place in _UNIT_PLACES):
            yield CryptpilotError(f"{_UNIT} is missing, so nothing starts the agent", REBUILD)
        elif not (tree / _WANTS).is_symlink():
            yield CryptpilotError(f"{_UNIT} is not enabled, so nothing starts the agent", REBUILD)
    elif not any(True for place in ("", "usr/", "var/") for _ in tree.glob(place + _HOOKS)):
        yield CryptpilotError("it has neither systemd nor a hook of cryptpilot, so nothing starts the agent", REBUILD)


def _not_shut_down(tree: Path) -> Iterator[CryptpilotError]:
    """Look for what lets a boot that fails be shut down by a systemd of any version."""
    has_systemd = any((tree / place).exists() for place in _SYSTEMD_PLACES)
    if has_systemd and not all((tree / _SHUTDOWN.format(unit=unit)).is_file() for unit in _WAITING_UNITS):
        yield CryptpilotError("cryptpilot-shutdown.conf is missing, so a boot that fails may hang", REBUILD)


def _shell_given(tree: Path) -> Iterator[CryptpilotError]:
    """Look for what keeps a boot that is denied something from giving a root shell on the console."""
    hooks = {path.parent.name for place in ("", "usr/", "var/") for path in tree.glob(place + _NO_SHELL_HOOKS)}
    if "rd.shell=0" not in kernel_parameters(tree) or not (tree / _NO_SHELL).exists() or "emergency" not in hooks:
        yield CryptpilotError("it gives a root shell on the console when a boot fails", REBUILD)


def _asks_nobody(tree: Path) -> Iterator[CryptpilotError]:
    """Look for what asks a person; without systemd the agent does that by itself."""
    if not any((tree / place).exists() for place in _SYSTEMD_PLACES):
        return
    programs = (name for name in _ASK_PROGRAMS if not any((tree / p / name).exists() for p in _PROGRAM_PLACES))
    units = (name for name in _ASK_UNITS if not any((tree / place / name).exists() for place in _UNIT_PLACES))
    for name in (*programs, *units):
        yield CryptpilotError(f"{name} is missing, so no key can be asked for on the console", REBUILD)
    if not any((tree / place / _ASK_WANTS).is_symlink() for place in _UNIT_PLACES):
        yield CryptpilotError(f"{_ASK_UNITS[0]} is not enabled, so no key can be asked for on the console", REBUILD)


def _network_missing(tree: Path) -> Iterator[CryptpilotError]:
    if "rd.neednet=1" not in kernel_parameters(tree):
        yield CryptpilotError("the key of a volume comes over the network, and the network is not asked for", REBUILD)
    if not any(name.startswith(_NETWORK_MODULES) for name in dracut_modules(tree)):
        yield CryptpilotError(
            "the key of a volume comes over the network, and nothing in the image brings a network up",
            remedy.network_missing(),
        )
