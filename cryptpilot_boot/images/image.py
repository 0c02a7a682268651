"""An initrd image, unpacked below a directory, and what it says of itself."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.images import record
from cryptpilot_boot.images.remedy import REBUILD
from cryptpilot_boot.system import dracut, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.images.record import Record

# The paths of all that is put into an image for cryptpilot alone, as a pattern of cpio(1).
_OURS = "*cryptpilot*"
_OUR_SIZE = 128 << 20  # bytes that are enough for them
_EXPANSION = 6  # how many times larger an image may be unpacked: xz and the like leave a quarter
_CRASH_MODULES = ("kdumpbase", "kdump")


@dataclasses.dataclass(frozen=True)
class UnpackedImage:
    """An image, unpacked at `tree`.

    has_agent: whether the agent is in it. record: None if a version of cryptpilot made it that leaves none. size: of
    what is in it for cryptpilot, bytes, uncompressed.
    """

    tree: Path
    has_agent: bool
    record: Record | None
    size: int


@contextlib.contextmanager
def unpacked(image: Path, *, everything: bool) -> Iterator[UnpackedImage]:
    """Unpack an image for the duration of the context. everything: not only what is in it for cryptpilot.

    Raises CryptpilotError when it cannot be unpacked, or its record cannot be read.
    """
    needed = image.stat().st_size * _EXPANSION if everything else _OUR_SIZE
    with workplace.private_directory(needed, in_memory=True) as place:
        tree = place / "tree"
        tree.mkdir(mode=0o700)
        dracut.unpack(image, tree, "" if everything else _OURS)
        text = below(tree, paths.IMAGE_RECORD)
        yield UnpackedImage(
            tree,
            has_agent=below(tree, paths.AGENT).exists(),
            record=record.parse(text.read_text(encoding="utf-8")) if text.exists() else None,
            size=sum(path.stat().st_size for path in _ours(tree)),
        )


def _ours(tree: Path) -> Iterator[Path]:
    for path in tree.rglob("*"):
        if "cryptpilot" in str(path.relative_to(tree)) and path.is_file() and not path.is_symlink():
            yield path


def below(tree: Path, path: Path | str) -> Path:
    """Return where an absolute path of an image is while the image is unpacked at `tree`."""
    return tree / str(path).lstrip("/")


def is_there(tree: Path, path: Path | str) -> bool:
    """Tell whether an image has a path. A link counts: it may lead anywhere in the image."""
    return below(tree, path).is_symlink() or below(tree, path).exists()


def kernel_parameters(tree: Path) -> set[str]:
    """Return the kernel parameters that were put into an image."""
    return {word for path in tree.glob("etc/cmdline.d/*.conf") for word in path.read_text().split()}


def dracut_modules(tree: Path) -> set[str]:
    """Return the names of the dracut modules that an image was made from."""
    lists = (tree / place / "lib/dracut/modules.txt" for place in ("usr", ""))
    return {line.strip() for path in lists if path.exists() for line in path.read_text().splitlines() if line.strip()}


def is_for_crash_dump(tree: Path) -> bool:
    """Tell whether an image is for the crash kernel, which opens volumes only if the dump is written to one."""
    return not dracut_modules(tree).isdisjoint(_CRASH_MODULES)


def rebuild_command(kernel: str) -> str:
    """Return the command that rebuilds the images of a kernel."""
    option = "" if kernel == dracut.running_kernel() else f" --kernel {kernel}"
    return f"cryptpilot initrd rebuild{option}"


def remake_command(path: Path, kernel: str) -> str:
    """Return the command that rebuilds an image of a kernel, which may be a unified one."""
    if dracut.is_unified(path):
        return f"kernel-install add {kernel} {dracut.kernel_file(kernel)}"
    return rebuild_command(kernel)


def next_step(hint: str, path: Path, kernel: str) -> str:
    """Say how the image is rebuilt where that is the last thing to be done."""
    return f"{hint}: {remake_command(path, kernel)}" if hint.endswith(REBUILD) else hint
