"""`cryptpilot initrd status`: the states of the images of the installed kernels."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.commands.image_check import required
from cryptpilot_boot.commands.show import table
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.images import image, record
from cryptpilot_boot.images.record import Differences
from cryptpilot_boot.system import dracut
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Config
    from cryptpilot_boot.images.record import Record


@dataclasses.dataclass(frozen=True)
class ImageStatus:
    """The state of the image of a kernel.

    path: None without an image. problem: why nothing else is known of it, "" when it is; hint: what to do then.
    compressed: bytes in the image, None when what compressed it is not here. good: whether a reboot onto it would open
    what is configured now.
    """

    kernel: str
    running: bool
    path: Path | None
    good: bool
    problem: str = ""
    hint: str = ""
    in_image: bool = False
    changes: Differences | None = None
    volumes: tuple[str, ...] = ()
    size: int = 0
    compressed: int | None = None
    compressor: str = ""


def status(config: Config, *, as_json: bool, say: Callable[[str], None]) -> bool:
    """Return the states of the images of all installed kernels; True when none is stale or lacks what it needs."""
    now = required(config)
    sizes: dict[tuple[str, str], int | None] = {}
    images = [(kernel, path) for kernel in dracut.kernels() for path in (*dracut.all_images(kernel), None)]
    known = {kernel for kernel, path in images if path}
    rows = [_status(kernel, path, now, sizes) for kernel, path in images if path or kernel not in known]
    if as_json:
        say(as_json_array(rows))
    elif not rows:
        say("No kernel is installed below /lib/modules.")
    else:
        for line in lines(rows, now):
            say(line)
    return all(row.good for row in rows)


def _status(kernel: str, path: Path | None, now: Record, sizes: dict[tuple[str, str], int | None]) -> ImageStatus:
    running = kernel == dracut.running_kernel()
    if path is None:
        return ImageStatus(kernel, running, None, good=not now.volumes, problem="no image")
    try:
        with image.unpacked(path, everything=False) as content:
            if not content.has_agent:
                return ImageStatus(kernel, running, path, good=not now.volumes)
            changes = record.since(content.record, now)
            compressor = dracut.compressor(path)
            # the same agent once: it is what takes the bytes, and the time
            key = (content.record.agent if content.record else str(path), compressor)
            if key not in sizes:
                sizes[key] = dracut.compressed_size(content.tree, compressor)
            return ImageStatus(
                kernel,
                running,
                path,
                good=not changes.all,
                in_image=True,
                changes=changes,
                volumes=tuple(content.record.volumes) if content.record else (),
                size=content.size,
                compressed=sizes[key],
                compressor=compressor,
            )
    except Interrupted:
        raise
    except CryptpilotError as error:
        return ImageStatus(kernel, running, path, good=False, problem=error.what, hint=error.hint)


_HEADER = ["Kernel", "Image", "In Image", "Configuration", "Agent", "Volumes", "Adds", "Compressed"]


def as_json_array(rows: Sequence[ImageStatus]) -> str:
    """Return where images stand, for programs."""
    return json.dumps([_record(row) for row in rows], indent=2)


def lines(rows: Sequence[ImageStatus], now: Record) -> Iterator[str]:
    """Yield a table of where images stand, and below it what is to be done. now: what they would be made from now."""
    yield from table([_HEADER, *(_row(row) for row in rows)])
    if any(row.running for row in rows):
        yield "* is the kernel that runs."
    if not now.volumes:
        yield "No volume is configured to be opened in the initrd (auto_open): no image needs cryptpilot."
    for row in rows:
        for reason in _reasons(row, now):
            yield f"{row.path or row.kernel}: {reason}"


def _row(row: ImageStatus) -> list[str]:
    changes = row.changes or Differences()
    known = [
        "stale" if changes.configuration else "current",
        "stale" if changes.agent else "current",
        ", ".join(row.volumes) or "-",
        readable(row.size),
        f"{readable(row.compressed)} ({row.compressor})" if row.compressed is not None else "-",
    ]
    return [
        f"{row.kernel}{' *' if row.running else ''}",
        str(row.path or "-"),
        "?" if row.problem and row.path else "yes" if row.in_image else "no",
        *(known if row.in_image else ["-"] * len(known)),
    ]


def _reasons(row: ImageStatus, now: Record) -> Iterator[str]:
    """Yield what to do about an image, and why."""
    if row.good:
        return
    if row.path is None:
        yield f"there is no image; make one: dracut --kver {row.kernel}"
        return
    remake = image.remake_command(row.path, row.kernel)
    if row.problem:
        yield row.problem
        if row.hint:
            yield row.hint
        if dracut.is_unified(row.path):
            yield f"unless that was done since the last change, rebuild it: {remake}"
    elif not row.in_image:
        yield f"does not open {', '.join(now.volumes)}; rebuild it: {remake}"
    else:
        changes = row.changes or Differences()
        yield from changes.all
        yield f"rebuild it: {remake}"


def _record(row: ImageStatus) -> dict[str, object]:
    changes = row.changes or Differences()
    return {
        "kernel": row.kernel,
        "running": row.running,
        "image": str(row.path) if row.path else None,
        "in_image": row.in_image,
        "configuration_current": not changes.configuration if row.in_image else None,
        "agent_current": not changes.agent if row.in_image else None,
        "changes": list(changes.all),
        "volumes": list(row.volumes),
        "bytes": row.size,
        "compressed_bytes": row.compressed,
        "compressor": row.compressor or None,
        "good": row.good,
        "problem": row.problem or None,
    }
