"""Whether an image has the kernel modules that its volumes need, and this machine's disks and network cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.images import remedy
from cryptpilot_boot.images.remedy import REBUILD, Finding
from cryptpilot_boot.system import dracut, kernel_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What no volume can be opened without, should the kernel's own modules not be here to be asked.
_ESSENTIAL = ("dm_crypt", "dm_integrity")


def missing(tree: Path, modules: Sequence[str]) -> Iterator[Finding]:
    """Hold the kernel modules of an image against those the kernel has: what it does not have at all is none's fault.

    modules: those of several architectures and kernels; those the volumes cannot do without must be there.
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


def drivers_missing(tree: Path, needed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield which modules an image lacks that drive something of this machine.

    needed: what they drive, by module. A host-only image that was made on another machine has that one's. What its
    kernel does not know by that name is passed over.
    """
    for within in _kernels(tree):
        there, known = _there(within), _known(within)
        wanted = {name: needed[module] for module in needed if module in known for name in (module, *known[module])}
        for name in sorted(wanted.keys() - there):
            hint = remedy.kernel_module_missing(name, dracut.modules_directory(within.name))
            yield Finding(
                f"the kernel module {name} of {within.name} is missing, which {wanted[name]} needs on this machine",
                hint,
            )


def disabled(tree: Path, modules: Sequence[str], kernel_command_line: str) -> Iterator[Finding]:
    """Look for what keeps the kernel from loading a module that is there, in the image and on the command line."""
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
    """Return the modules that are in an image, or built into its kernel. within: the image's directory of them."""
    installed = dracut.modules_directory(within.name)
    return {remedy.module_name(path.name) for path in within.rglob("*.ko*")} | _builtin(within) | _builtin(installed)


def _known(within: Path) -> dict[str, list[str]]:
    return _dependencies(dracut.modules_directory(within.name)) or _dependencies(within)


def _builtin(directory: Path) -> set[str]:
    path = directory / "modules.builtin"
    return {remedy.module_name(Path(line).name) for line in path.read_text().splitlines()} if path.exists() else set()


def _dependencies(directory: Path) -> dict[str, list[str]]:
    """Return what each module of a kernel needs loaded before it, as depmod(8) wrote it down."""
    path = directory / "modules.dep"
    lines = [line.partition(":")[::2] for line in path.read_text().splitlines()] if path.exists() else []
    return {
        remedy.module_name(Path(of).name): [remedy.module_name(Path(word).name) for word in words.split()]
        for of, words in lines
    }
