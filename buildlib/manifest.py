"""What is in a bundle, written down in it, and held against it later.

manifest.json says all; manifest.files, manifest.libraries and manifest.libraries-optional say line by line what a
shell needs to copy the bundle into an initrd.
"""

from __future__ import annotations

import dataclasses
import json
import stat
from typing import TYPE_CHECKING, Any

from buildlib import elf
from buildlib.base import BuildError, digest_of_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST = "manifest.json"
_FILES = "manifest.files"
_LIBRARIES = "manifest.libraries"
_OPTIONAL_LIBRARIES = "manifest.libraries-optional"
_OURS = frozenset({MANIFEST, _FILES, _LIBRARIES, _OPTIONAL_LIBRARIES})


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a bundle was made from. inputs: digest of everything that decides what is in it."""

    version: str
    python: str
    inputs: str


def write(bundle: Path, origin: Origin, elves: Sequence[elf.Elf]) -> None:
    """Write the manifest files into a finished bundle."""
    needed = {one.path: list(one.needed) for one in elves}
    files = [_entry(bundle, path, needed.get(path)) for path in _paths(bundle)]
    table = {
        **dataclasses.asdict(origin),
        "minimum_versions": elf.minimum_versions(elves),
        "system_libraries": elf.system_libraries(elves),
        "system_libraries_optional": list(elf.LOADED_LIBRARIES),
        "size": sum(entry["size"] for entry in files),
        "files": files,
    }
    texts = {MANIFEST: json.dumps(table, indent=1) + "\n", **_texts(table)}
    for name, text in texts.items():
        (bundle / name).write_text(text)
        (bundle / name).chmod(0o644)


def _entry(bundle: Path, path: str, needed: list[str] | None) -> dict[str, Any]:
    status = (bundle / path).lstat()
    entry: dict[str, Any] = {
        "path": path,
        "size": status.st_size,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "sha256": digest_of_file(bundle / path),
    }
    return entry if needed is None else {**entry, "needed": needed}


def _paths(bundle: Path) -> list[str]:
    """Return every file below the bundle but the manifest's own, sorted; links count as files."""
    found = (path for path in bundle.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({str(path.relative_to(bundle)) for path in found} - _OURS)


def _texts(table: dict[str, Any]) -> dict[str, str]:
    """Return the content of the files for shells."""
    lists = {
        _FILES: sorted([*(entry["path"] for entry in table["files"]), *_OURS]),
        _LIBRARIES: table["system_libraries"],
        _OPTIONAL_LIBRARIES: table["system_libraries_optional"],
    }
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in lists.items()}


def load(bundle: Path) -> dict[str, Any]:
    """Read a bundle's manifest.json. Raises BuildError."""
    path = bundle / MANIFEST
    try:
        table: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}", f"is {bundle} a bundle?") from None
    except ValueError as error:
        raise BuildError(f"{path} is damaged: {error}", "build it again: build.py freeze") from None
    return table


def differences(bundle: Path) -> list[str]:
    """Say what in a bundle is not as its manifest has it; an empty list says that all is well."""
    table = load(bundle)
    wanted = {entry["path"]: entry for entry in table["files"]}
    present = _paths(bundle)
    found = [f"{path}: is missing" for path in wanted if path not in present]
    found += [f"{path}: is not in the manifest" for path in present if path not in wanted]
    for path in sorted(wanted.keys() & set(present)):
        found += _differences_of_file(bundle, wanted[path])
    for name, text in _texts(table).items():
        if not (bundle / name).is_file() or (bundle / name).read_text() != text:
            found.append(f"{name}: does not agree with {MANIFEST}")
    return sorted(found)


def _differences_of_file(bundle: Path, entry: dict[str, Any]) -> list[str]:
    path = entry["path"]
    status = (bundle / path).lstat()
    if not stat.S_ISREG(status.st_mode):
        return [f"{path}: is no regular file"]
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    found = [f"{path}: has mode {mode}, not {entry['mode']}"] if mode != entry["mode"] else []
    if digest_of_file(bundle / path) != entry["sha256"]:
        found.append(f"{path}: has been changed")
    return found


def require_sound(bundle: Path) -> dict[str, Any]:
    """Return the manifest of a bundle; raise BuildError when the bundle is not as it says."""
    found = differences(bundle)
    if found:
        raise BuildError(
            f"{bundle} is not as its manifest has it:\n  " + "\n  ".join(found),
            "do not run it; build or install it again",
        )
    return load(bundle)
