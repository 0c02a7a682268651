"""`make demo-root`: an ordinary disk image becomes one that boots from an encrypted root, by one command.

As in `tests.demo`, nothing is simulated but the KMS: the image is Debian's kernel, dracut and GRUB on a GPT disk, the
command is the installed one, and the machine boots by firmware and GRUB from the disk, with nothing else given to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests import machines
from tests.boot import stock
from tests.boot.stock import Stock
from tests.demo import shown, step, tell
from tests.lab import net, qemu
from tests.lab.disk import Disk, sha256
from tests.lab.run import run
from tests.lab.tree import clone

OUTPUT = Path("build/demo-root")
IN, OUT = "debian-12.img", "encrypted.img"
TOLD = re.compile(r"Booting `|Loading |cryptpilot|login:|reboot: ")
"""What is shown of the console; all of it is in a file."""
COMMAND = f"cryptpilot convert {IN} {OUT} --volume {machines.ROOT}"


def main() -> int:
    """Show it; the exit status is 0 when the machine runs from the encrypted root."""
    return shown(demo, OUTPUT)


def show(line: qemu.Line) -> None:
    """Show a line of the console that has to do with it."""
    if TOLD.search(line.text):
        print(f"    {line.seconds:6.2f}  {line.text}", flush=True)


def demo(work: Path) -> int:
    """Make the image, convert it, boot it, and tell what happened."""
    with step("an ordinary image: Debian 12 with GRUB, without cryptpilot (made once, and kept)"):
        site = machines.make_site(work / "kms")
        image = site.directory / IN
        run(["cp", "--sparse=always", stock.image(Stock("ext4", "")), image])
        before = sha256(image)
    with step("install cryptpilot on the machine that converts it (make install DESTDIR=...), and describe the volume"):
        tree = machines.install(clone(stock.root(), work / "tree"))
        volume = machines.volume_file(site, dev="/dev/disk/by-partlabel/root")
        machines.configure(tree, {machines.ROOT: volume}, machines.settings(verbose=True, timeout=240))
    with step(f"there (user-mode Linux, which has dm-crypt): {COMMAND}"):
        script = f"cd {machines.KMS_FILES}\n{COMMAND}\n"
        done = machines.run_with_kms(site, tree, script, modules=stock.UML_MODULES, timeout=900).check()
        print("".join(f"    {line}\n" for line in done.stdout.splitlines()), end="")
        if sha256(image) != before:
            print(f"\n{IN} is not as it was.")
            return 1
        print(f"    {IN} is as it was")
        site.forget_requests()
    report_disk = machines.report_disk(work / "report.img")
    disks = (Disk(site.directory / OUT, "system"), report_disk)
    said = f"boot {OUT} (QEMU, software emulation) by BIOS and GRUB"
    with step(said), net.namespace() as network, machines.running_kms(site, network):
        result = qemu.boot(
            qemu.Machine(None, None, "", disks, netns=network, smp=2),
            timeout=300,
            log=OUTPUT / "console.log",
            on_line=show,
        )
    if result.ending is not qemu.Ending.POWERED_OFF:
        print(f"\nThe machine did not come up: {result.ending.value}. See {OUTPUT}/console.log")
        return 1
    return tell(machines.read_report(report_disk), site, OUTPUT)


if __name__ == "__main__":
    raise SystemExit(main())
