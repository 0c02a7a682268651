"""Whether an image has the kernel modules for its volumes, and for this machine's disks and network cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.images import remedy
from cryptpilot_boot.images.remedy import REBUILD, Finding
from cryptpilot_boot.system import block, dracut, drivers, kernel_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cryptpilot_boot.config import Volume

# Modules that every volume needs. Counted even if the list of the kernel's modules is not on this machine.
_ESSENTIAL = ("dm_crypt", "dm_integrity")


def missing(tree: Path, modules: Sequence[str]) -> Iterator[Finding]:
    """Find the kernel modules that an image lacks. A module that its kernel does not have either is skipped.

    modules: what volumes need, on any architecture and kernel.
    """
    kernels = _kernels(tree)
    if not kernels:
        yield Finding("it has no kernel modules", REBUILD)
    for within in kernels:
        there, known = _there(within), _known(within)
        wanted = {
            name
            for module in modules
            if module in known or (module in _ESSENTIAL and module not in there)
            for name in (module, *known.get(module, ()))
        }
        for name in sorted(wanted - there):
            hint = remedy.kernel_module_missing(name, dracut.modules_directory(within.name))
            yield Finding(f"the kernel module {name} of {within.name} is missing", hint)


def drivers_needed(volumes: Sequence[Volume]) -> dict[str, str]:
    """Return by kernel module what it drives of this machine that these volumes need: disks, and the network's cards.

    Empty where none of the disks is there: this is not the machine that the image is for.
    """
    disks = {one.volume: drivers.of_disk(one.dev) for one in volumes}
    found = {module: f"the disk of {name}" for name, modules in disks.items() for module in modules}
    if any(map(block.is_block_device, (one.dev for one in volumes))) and any(one.needs_network for one in volumes):
        for card, modules in drivers.of_network_cards().items():
            found = {**dict.fromkeys(modules, f"the network card {card}"), **found}
    return found


def drivers_missing(tree: Path, needed: Mapping[str, str]) -> Iterator[Finding]:
    """Find the drivers of this machine that an image lacks: a host-only image has the drivers of its own machine.

    needed: as of `drivers_needed`. Modules that the image's kernel does not know are passed over.
    """
    for within in _kernels(tree):
        there, known = _there(within), _known(within)
        wanted = {name: needed[module] for module in needed if module in known for name in (module, *known[module])}
        for name in sorted(wanted.keys() - there):
            hint = remedy.kernel_module_missing(name, dracut.modules_directory(within.name))
            yield Finding(
                f"the kernel module {name} of {within.name} is missing; {wanted[name]} needs it on this machine",
                hint,
            )


def disabled(tree: Path, modules: Sequence[str], kernel_command_line: str) -> Iterator[Finding]:
    """Find what keeps the kernel from loading a module: a line in the image, or a kernel parameter."""
    off = kernel_parameters.values(kernel_command_line).get("module_blacklist", "").replace("-", "_").split(",")
    for name in sorted(set(_ESSENTIAL) & set(modules)):
        if line := remedy.disabling(name, tree):
            yield Finding(
                f"the kernel module {name} is disabled in it: {line}",
                f"remove that line on this machine, then {REBUILD}",
            )
        if name in off:
            yield Finding(
                f"the kernel module {name} is disabled by the kernel parameter module_blacklist",
                f"remove {name} from module_blacklist in the boot loader's configuration, and boot without it",
            )


def _kernels(tree: Path) -> list[Path]:
    return sorted(tree.glob("lib/modules/*")) or sorted(tree.glob("usr/lib/modules/*"))


def _there(within: Path) -> set[str]:
    """Return the modules that are in an image or built into its kernel. within: the modules' directory in it."""
    installed = dracut.modules_directory(within.name)
    return {remedy.module_name(path.name) for path in within.rglob("*.ko*")} | _builtin(within) | _builtin(installed)


def _known(within: Path) -> dict[str, list[str]]:
    return _dependencies(dracut.modules_directory(within.name)) or _dependencies(within)


def _builtin(directory: Path) -> set[str]:
    path = directory / "modules.builtin"
    return {remedy.module_name(Path(line).name) for line in path.read_text().splitlines()} if path.exists() else set()


def _dependencies(directory: Path) -> dict[str, list[str]]:
    """Return the modules that have to be loaded before each module of a kernel, from the list of depmod(8)."""
    path = directory / "modules.dep"
    lines = [line.partition(":")[::2] for line in path.read_text().splitlines()] if path.exists() else []
    return {
        remedy.module_name(Path(of).name): [remedy.module_name(Path(word).name) for word in words.split()]
        for of, words in lines
    }
