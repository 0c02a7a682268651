"""docs/tutorial-root.md at home: its command lines are typed as they are printed, and the machine boots.

So are those of docs/readable.md and docs/troubleshooting.md that look into the converted image, mount it by hand and
repair it, before it boots.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import machines, printed
from tests.boot import stock
from tests.lab.run import run
from tests.lab.tree import SHARE
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from tests.printed import Printed

DOCS = machines.CHECKOUT / "docs"
PAGES = ("tutorial-root.md", "readable.md", "troubleshooting.md")
PLACE = "/root/image"


@pytest.mark.matrix
@pytest.mark.usefixtures("lab")
def test_the_tutorial_at_home_is_what_happens(tmp_path: Path) -> None:
    pages = [(DOCS / name).read_text() for name in PAGES]
    typed = [one for page in pages for one in printed.commands(page, "build")]
    [boot] = printed.commands(pages[0], "boot")
    assert len(typed) > 15
    images = tmp_path / "images"
    images.mkdir(mode=0o700)
    run(["qemu-img", "convert", "-O", "qcow2", stock.image(stock.Stock("ext4", "")), images / "debian-12.qcow2"])
    said = run_uml(
        machines.installed_tree(tmp_path / "tree", stock.PACKAGES),
        f"mkdir {PLACE}; mount --bind {SHARE} {PLACE}; cd {PLACE}\nexec 2>&1\n" + "\n".join(map(_line, typed)),
        share=images,
        modules=stock.UML_MODULES,
        timeout=1200,
    ).check()
    (tmp_path / "build.log").write_text(said.stdout)
    for one in typed:
        missing = [line for line in one.output if not printed.is_printed(line, said.stdout)]
        assert missing == [], said
    report = machines.report_disk(tmp_path / "report.img")
    console = _boot(boot, images, report.path)
    (tmp_path / "console.log").write_text(console)
    found = machines.read_report(report)
    assert found["root_source"].strip() == "/dev/mapper/root"
    assert "root: /dev/mapper/root opened in" in console, console


def _line(one: Printed) -> str:
    """Type a command, and show that in what comes out."""
    return f"printf '# %s\\n' {shlex.quote(one.command)}\n{one.command}"


def _boot(one: Printed, images: Path, report: Path) -> str:
    """Start a machine by a command line of the page, with this machine's emulation, no network, and a disk more."""
    words = shlex.split(one.command.replace("\\\n", " "))
    here = {"kvm": "tcg,thread=multi", "max": "max,-erms,-fsrm"}
    words = [here.get(word, word.replace("file=", f"file={images}/")) for word in words]
    more = [
        "-drive",
        f"file={report},format=raw,if=none,id=report",
        "-device",
        "virtio-blk-pci,drive=report,serial=report",
    ]
    return run([*words, *more, "-nic", "none", "-no-reboot"], timeout=400)
