"""What to do about something that an image lacks: rebuild the image, and what has to be done first.

The image may be older than the thing, this machine may not have the thing, or dracut may be set to leave it out.
A rebuild is enough only in the first case. `root` is where this machine's files are.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REBUILD = "rebuild it"
"""The end of each hint by which the image has to be rebuilt. The command for that depends on the image."""
REINSTALL = f"the cryptpilot that is installed is damaged: reinstall it, then {REBUILD}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong with an image (noun first), and what to do about it; see REBUILD."""

    what: str
    hint: str


_ROOT = Path("/")
_MODULES = "usr/lib/dracut/modules.d"
# The files of dracut.conf(5).
_DRACUT_CONFIGURATION = ("etc/dracut.conf", "etc/dracut.conf.d/*.conf", "usr/lib/dracut/dracut.conf.d/*.conf")
_MODPROBE_CONFIGURATION = ("etc/modprobe.d/*.conf", "run/modprobe.d/*.conf", "usr/lib/modprobe.d/*.conf",
                           "lib/modprobe.d/*.conf")  # fmt: skip
_PROGRAM_PLACES = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
_UNIT_PLACES = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_PACKAGES = {
    "cryptsetup": "cryptsetup (Debian: cryptsetup-bin)",
    "blkid": "util-linux",
    "mkswap": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.vfat": "dosfstools",
}


def of_new_image(problems: Sequence[Finding]) -> str:
    """Say what to do about a new image that is not whole: made once more, it would be the same."""
    other = next((problem.hint for problem in problems if problem.hint != REBUILD), "")
    return (
        other.replace(REBUILD, "run this again")
        or "see how dracut was called: the options given here, /etc/dracut.conf and /etc/dracut.conf.d"
    )


def agent_missing(root: Path = _ROOT) -> str:
    """Return the hint for an image without cryptpilot."""
    chosen = [(path, found[1]) for path, line in _lines(_DRACUT_CONFIGURATION, root)
              if (found := re.fullmatch(r"dracutmodules\+?=(.*)", line))]  # fmt: skip
    if chosen and "cryptpilot" not in _words(" ".join(text for _, text in chosen)):
        return f"add cryptpilot to dracutmodules in {chosen[-1][0]}, then {REBUILD}"
    return dracut_module_missing("cryptpilot", f"reinstall cryptpilot: /{_MODULES}/95cryptpilot is missing", root)


def network_missing(root: Path = _ROOT) -> str:
    """Return the hint for an image that does not bring a network up."""
    return dracut_module_missing("network", "install dracut-network", root)


def dracut_module_missing(name: str, install: str, root: Path = _ROOT) -> str:
    """Return the hint for an image without one of dracut's modules. install: how to get the module, as a sentence."""
    if not any(True for _ in (root / _MODULES).glob(f"[0-9][0-9]{name}")):
        return f"{install}, then {REBUILD}"
    return _unless_left_out("omit_dracutmodules", name, root)


def program_missing(name: str, root: Path = _ROOT) -> str:
    """Return the hint for an image that lacks a program, by name or by path."""
    places = [name] if name.startswith("/") else [f"{place}/{name}" for place in _PROGRAM_PLACES]
    if any((root / place.lstrip("/")).exists() for place in places):
        return REBUILD
    return f"install {_PACKAGES.get(name, 'it')}, then {REBUILD}"


def unit_missing(name: str, root: Path = _ROOT) -> str:
    """Return the hint for an image that lacks a service."""
    if any((root / place / name).exists() for place in _UNIT_PLACES):
        return REBUILD
    return f"install {name.partition('.service')[0]}, then {REBUILD}"


def program_broken(name: str) -> str:
    """Return the hint for a program that lacks libraries on this machine too."""
    return f"reinstall {_PACKAGES.get(name, 'it')}, then {REBUILD}"


def kernel_module_missing(name: str, installed: Path, root: Path = _ROOT) -> str:
    """Return the hint for an image that lacks a kernel module. installed: the directory of the kernel's modules."""
    release = installed.name
    files = module_files(installed)
    if not files:
        return f"install kernel {release}: its modules are not in {installed}; then {REBUILD}"
    if name not in files:
        return (
            f"kernel {release} has no {name}: install the package with the rest of its drivers (Enterprise Linux:"
            f" kernel-modules-{release}; Ubuntu: linux-modules-extra-{release}) and {REBUILD}, or boot another kernel"
            " (Debian: linux-image-amd64, linux-image-arm64)"
        )
    if not (installed / files[name]).exists():
        return f"reinstall kernel {release}: {installed / files[name]} is missing; then {REBUILD}"
    if line := disabling(name, root):
        return f"remove {line}, then {REBUILD}"
    return _unless_left_out("omit_drivers", name, root)


def module_files(directory: Path) -> dict[str, str]:
    """Return the paths of a kernel's modules by name, from the list of depmod(8); empty without that list."""
    path = directory / "modules.dep"
    files = [line.partition(":")[0] for line in path.read_text().splitlines()] if path.exists() else []
    return {module_name(Path(file).name): file for file in files}


def module_name(file: str) -> str:
    """Return the name of a kernel module. file: the name of its file, which may be compressed and have hyphens."""
    return file.partition(".ko")[0].replace("-", "_")


def disabling(name: str, root: Path = _ROOT) -> str:
    """Say which line of modprobe.d(5) keeps a kernel module from being loaded by name; "" if no line does."""
    for path, line in _lines(_MODPROBE_CONFIGURATION, root):
        words = line.split()
        if len(words) > 2 and words[0] == "install" and words[1].replace("-", "_") == name and "modprobe" not in line:
            return f'"{line}" from {path}'
    return ""


def disk_claimed(parameter: str, root: Path = _ROOT) -> str:
    """Return the hint for a kernel parameter in an image by which dracut opens a volume."""
    for path, line in _lines(_DRACUT_CONFIGURATION, root):
        if line.startswith("kernel_cmdline") and parameter in line:
            return f"remove {parameter} from kernel_cmdline in {path}, then {REBUILD}"
    return REBUILD


def _unless_left_out(setting: str, name: str, root: Path) -> str:
    for path, line in _lines(_DRACUT_CONFIGURATION, root):
        found = re.fullmatch(rf"{setting}\+?=(.*)", line)
        if found and name.replace("-", "_") in _words(found[1]):
            return f"remove {name} from {setting} in {path}, then {REBUILD}"
    return REBUILD


def _words(text: str) -> list[str]:
    return [word.replace("-", "_") for word in text.replace('"', " ").replace("'", " ").split()]


def _lines(patterns: tuple[str, ...], root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the lines of configuration files, without comments, and the path of each on the machine."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if text := line.partition("#")[0].strip():
                    yield Path("/") / path.relative_to(root), text
