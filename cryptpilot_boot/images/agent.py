"""The frozen agent: whether it is undamaged in an image, what it lacks there, and what it says that the image needs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cryptpilot_boot import paths
from cryptpilot_boot.images import record, remedy
from cryptpilot_boot.images.image import below
from cryptpilot_boot.images.remedy import REBUILD, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIBRARY_PLACES = ("usr/lib*", "usr/lib*/*", "lib*", "lib*/*")


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What an image needs, as the agent in it says: the output of `cryptpilot initrd plan`, run there."""

    configuration: tuple[str, ...]
    programs: tuple[str, ...]
    files: tuple[str, ...]
    modules: tuple[str, ...]
    units: tuple[str, ...]
    network: bool
    no_shell: bool = False
    ask: bool = False


def parse_requirements(text: str) -> Requirements:
    """Read lines of `kind value`; see docs/dev/architecture.md."""
    pairs = [line.partition(" ")[::2] for line in text.splitlines()]
    kinds = ("config", "program", "file", "module", "unit")
    configuration, programs, files, modules, units = (
        tuple(value for key, value in pairs if key == kind) for kind in kinds
    )
    needs = (("network", "yes") in pairs, ("shell", "no") in pairs, ("ask", "yes") in pairs)
    return Requirements(configuration, programs, files, modules, units, *needs)


def bundle_findings(bundle: Path = paths.BUNDLE) -> Iterator[Finding]:
    """Compare a frozen agent, by default the installed one, with its manifest. The hints are for a copy in an image."""
    entries = _manifest(bundle).get("files")
    if not entries:
        yield Finding(f"{paths.MANIFEST} is missing or damaged", REBUILD)
        return
    for entry in entries:
        found = record.digest(bundle / entry["path"])
        if found != entry["sha256"]:
            what = "was changed" if found else "is missing"
            yield Finding(f"{paths.BUNDLE / entry['path']} {what}", REBUILD)


def damaged(tree: Path) -> Iterator[Finding]:
    """Compare the agent in an image with its manifest. A rebuild would copy a damage of the installed one."""
    found = list(bundle_findings(below(tree, paths.BUNDLE)))
    hint = remedy.REINSTALL if found and any(True for _ in bundle_findings()) else REBUILD
    for problem in found:
        yield dataclasses.replace(problem, hint=hint)


def libraries_missing(tree: Path) -> Iterator[Finding]:
    """Find the system libraries that the agent lacks. It may run without them, and fail at a late import."""
    for name in _manifest(below(tree, paths.BUNDLE)).get("system_libraries", ()):
        if not any(True for place in _LIBRARY_PLACES for _ in tree.glob(f"{place}/{name}")):
            yield Finding(f"the library {name}, which the agent needs, is missing", REBUILD)


def _manifest(bundle: Path) -> dict[str, Any]:
    """Return what the build wrote down about a frozen agent; empty if that cannot be read."""
    try:
        table: dict[str, Any] = json.loads((bundle / paths.MANIFEST.name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table
