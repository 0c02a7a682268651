"""`make demo`: a machine boots from a disk that unlocks itself with a secret from KMS.

Nothing in it is simulated but the KMS, which exists in the cloud alone: the agent is the one that gets installed,
the disk is LUKS2 written by `cryptpilot init`, the image is dracut's, the boot is a whole machine's in QEMU.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from tests import machines
from tests.lab import net, qemu
from tests.lab.run import mean_default_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT = Path("build/demo")


def main() -> int:
    """Show the main job; the exit status is 0 when the machine runs from the encrypted root."""
    return shown(demo, OUTPUT)


def shown(demo: Callable[[Path], int], output: Path) -> int:
    """Show a demo, which is given a directory to work in. output: where it leaves what it has to show, made anew."""
    mean_default_signals()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix=f"cryptpilot-{output.name}-") as work:
        return demo(Path(work))


def demo(work: Path) -> int:
    """Make the machine, boot it, and tell what happened."""
    with step("install cryptpilot into a Debian 12 tree (make install DESTDIR=...)"):
        site = machines.make_site(work / "kms")
        tree = machines.installed_tree(work / "tree")
        machines.configure(tree, {machines.ROOT: machines.volume_file(site)}, machines.settings(verbose=True))
    with step("make the root disk: cryptpilot init, open, and unpack the system into it (user-mode Linux)"):
        root = machines.make_root_disk(site, tree, work)
        site.forget_requests()
    with step("make the initrd with the tree's own dracut"):
        image = machines.make_image(tree, work / "initrd.img")
    report_disk = machines.report_disk(work / "report.img")
    with step("boot it (QEMU, software emulation)"), net.namespace() as network, machines.running_kms(site, network):
        result = qemu.boot(
            replace(machines.machine(tree, image, (root, report_disk), network), smp=2),
            timeout=180,
            log=OUTPUT / "console.log",
            on_line=lambda line: print(f"    {line.seconds:6.2f}  {line.text}", flush=True),
        )
    if result.ending is not qemu.Ending.POWERED_OFF:
        print(f"\nThe machine did not come up: {result.ending.value}. See {OUTPUT}/console.log")
        return 1
    return tell(machines.read_report(report_disk), site, OUTPUT)


def tell(report: dict[str, str], site: machines.Site, output: Path) -> int:
    """Print what happened and leave it in a directory, in report.json."""
    root_source = report["root_source"].strip()
    requests = site.requests()
    summary = {
        "root_source": root_source,
        "volumes": json.loads(report["show.json"]),
        "kms_requests": requests,
        "boot": json.loads(report["boot-report.json"]),
    }
    (output / "report.json").write_text(json.dumps(summary, indent=2) + "\n")
    (output / "boot.svg").write_text(report["boot-report.svg"])

    print("\nWhat `cryptpilot boot report` says in the machine:\n")
    print(report["boot-report"])
    print(f"/ is {root_source}; the KMS served {len(requests)} request for a secret.")
    print(f"Left behind in {output}: console.log, report.json and boot.svg, a picture of this boot")
    return 0 if root_source == f"/dev/mapper/{machines.ROOT}" else 1


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(f"==> {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"    {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
