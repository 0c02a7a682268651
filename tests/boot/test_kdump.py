"""What dracut puts into the image of the kernel that writes a crash dump, made as mkdumprd makes it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.tree import clone, in_chroot, kernel_release

if TYPE_CHECKING:
    from pathlib import Path

_MODULE = machines.CHECKOUT / "tests/boot/99kdumpbase"
_IMAGE = "/boot/initramfs-kdump.img"
_MKDUMPRD = "--hostonly --hostonly-cmdline --hostonly-i18n --hostonly-mode strict"
_QUICK = "--compress 'gzip -1' --nostrip"
_SWAP = 'volume = "swap"\ndev = "/dev/lab-luks/swap"\nmakefs = "swap"\n[encrypt.otp]\n'
_TRACES = ("cryptpilot", "rd.neednet")
"""What stands for the product in the listing of an image and in what dracut said."""


@pytest.fixture(scope="module")
def home(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree whose initrd opens a volume with its key in KMS, and which has the module that mkdumprd asks for."""
    copy = clone(tree, tmp_path_factory.mktemp("kdump") / "tree")
    shutil.copytree(_MODULE, copy / "usr/lib/dracut/modules.d" / _MODULE.name)
    shutil.copytree(machines.CHECKOUT / "tests/boot/89lab-luks", copy / "usr/lib/dracut/modules.d/89lab-luks")
    machines.configure(copy, {"swap": _SWAP})
    return copy


def make(home: Path, words: str, *, before: str = "") -> tuple[str, str]:
    """Make an image as mkdumprd does; return what dracut said, and the image's files and kernel parameters."""
    said = in_chroot(
        home,
        [
            "bash",
            "-c",
            f"""set -e
{before}
dracut --force {_QUICK} {_MKDUMPRD} {words} {_IMAGE} {kernel_release(home)} 2>&1
echo "== listing"
lsinitrd {_IMAGE}
lsinitrd {_IMAGE} -f 'etc/cmdline.d/*'
rm {_IMAGE}""",
        ],
    )
    output, _, listing = said.partition("== listing\n")
    return _without_options(output, "Executing: "), _without_options(listing, "Arguments: ")


def _without_options(text: str, mark: str) -> str:
    """Leave out the line that repeats the options dracut was given."""
    return "\n".join(line for line in text.splitlines() if mark not in line)


_VOLUME_IN_USE = """\
mkdir /dev/lab-luks; truncate -s 20M /dev/lab-luks/swap
cheap='--pbkdf pbkdf2 --pbkdf-force-iterations 1000'
echo x | cryptsetup luksFormat -q --type luks2 --subsystem cryptpilot $cheap /dev/lab-luks/swap -
export IN_KDUMP=1"""


@pytest.mark.parametrize(
    ("words", "before"),
    [("--add kdumpbase", ""), ("--add 'lab-luks cryptpilot'", _VOLUME_IN_USE)],
    ids=["kdumpbase", "IN_KDUMP"],
)
def test_a_crash_kernels_image_has_nothing_of_cryptpilots(home: Path, words: str, before: str) -> None:
    """No agent, no credentials, no network; and dracut neither complains nor has the image ask for a password."""
    said, listing = make(home, words, before=before)
    assert ("etc/kdump.conf" in listing) is ("kdumpbase" in words)
    assert [line for line in (said + listing).splitlines() if any(word in line for word in _TRACES)] == []
    assert "rd.luks" not in listing
    assert [line for line in said.splitlines() if "cannot be" in line or "[E]" in line] == []


_ON_A_VOLUME = """\
mkdir -p /run/block/60:0/dm /run/block/60:1/dm /run/block/60:1/slaves
echo root > /run/block/60:0/dm/name
echo data-dumps > /run/block/60:1/dm/name
ln -s /run/block/60:0 /run/block/60:1/slaves/dm-0
mount --bind /run/block /sys/dev/block
mknod /dev/dm-1 b 60 1
mkdir /dev/data; ln -s ../dm-1 /dev/data/dumps
export IN_KDUMP=1"""
"""Has a logical volume on an open mapping. No chroot of the lab has a device-mapper; its number is nobody's."""


def test_a_crash_kernels_image_opens_the_volume_that_the_dump_goes_to(home: Path) -> None:
    _, listing = make(home, "--add kdumpbase --device /dev/data/dumps", before=_ON_A_VOLUME)
    assert "usr/libexec/cryptpilot/cryptpilot" in listing
    assert "etc/cryptpilot/volumes/root.toml" in listing
    assert "rd.neednet=1" in listing
