"""What is to be done about what an image lacks: each finding, whether a rebuild mends it, and what does if not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot.commands import image_check
from cryptpilot_boot.images import agent, image, kernel_modules, record, remedy
from cryptpilot_boot.images.remedy import Finding
from cryptpilot_boot.system import dracut
from tests.unit.test_config import GUIDE_OTP, configure
from tests.unit.test_images import tree

KERNEL = "usr/lib/modules/6.1"
DEP = "kernel/dm-crypt.ko.xz: kernel/dm-mod.ko.xz\nkernel/dm-mod.ko.xz:\n"
OMIT = "etc/dracut.conf.d/50-small.conf"


def of_driver(root: Path) -> str:
    return remedy.kernel_module_missing("dm_crypt", root / KERNEL, root)


def of_agent(root: Path) -> str:
    return remedy.agent_missing(root)


def of_network(root: Path) -> str:
    return remedy.network_missing(root)


def of_program(root: Path) -> str:
    return remedy.program_missing("mkfs.ext4", root)


def of_claim(root: Path) -> str:
    return remedy.disk_claimed("rd.luks.uuid=luks-aa", root)


OURS = "usr/lib/dracut/modules.d/95cryptpilot/module-setup.sh"
NETWORK = "usr/lib/dracut/modules.d/40network/module-setup.sh"
HAS_DRIVER = {f"{KERNEL}/modules.dep": DEP, f"{KERNEL}/kernel/dm-crypt.ko.xz": ""}
# finding, what this machine has, and what is to be done before a rebuild; "" if nothing
CASES: dict[str, tuple[Callable[[Path], str], dict[str, str], str]] = {
    "driver, an older image": (of_driver, HAS_DRIVER, ""),
    "driver, omitted": (
        of_driver, {**HAS_DRIVER, OMIT: 'omit_drivers+=" nouveau dm-crypt "\n'},
        f"remove dm_crypt from omit_drivers in /{OMIT}",
    ),
    "driver, another omitted": (
        of_driver, {**HAS_DRIVER, OMIT: '# omit_drivers+=" dm_crypt "\nomit_drivers+=" dm_crypt2 "'}, ""
    ),
    "driver, disabled": (
        of_driver, {**HAS_DRIVER, "etc/modprobe.d/cis.conf": "install dm-crypt /bin/false # CIS\n"},
        'remove "install dm-crypt /bin/false" from /etc/modprobe.d/cis.conf',
    ),
    "driver, with something to be done before": (
        of_driver, {**HAS_DRIVER, "etc/modprobe.d/x.conf": "install dm_crypt modprobe -i dm_crypt; true\n"}, ""
    ),
    "driver, the kernel has none": (
        of_driver, {f"{KERNEL}/modules.dep": "kernel/xts.ko:\n"},
        "kernel 6.1 has no dm_crypt: install the package with the rest of its drivers (Enterprise Linux:",
    ),
    "driver, its file is gone": (of_driver, {f"{KERNEL}/modules.dep": DEP}, "reinstall kernel 6.1: "),
    "driver, no kernel": (of_driver, {}, "install kernel 6.1: "),
    "agent, an older image": (of_agent, {OURS: ""}, ""),
    "agent, omitted": (
        of_agent, {OURS: "", "etc/dracut.conf": "omit_dracutmodules='cryptpilot plymouth'\n"},
        "remove cryptpilot from omit_dracutmodules in /etc/dracut.conf",
    ),
    "agent, not chosen": (
        of_agent, {OURS: "", OMIT: 'dracutmodules+=" base systemd "\n'}, f"add cryptpilot to dracutmodules in /{OMIT}"
    ),
    "agent, chosen": (of_agent, {OURS: "", OMIT: 'dracutmodules+=" base cryptpilot "\n'}, ""),
    "agent, no module": (of_agent, {}, "reinstall cryptpilot: /usr/lib/dracut/modules.d/95cryptpilot is missing"),
    "network, an older image": (of_network, {NETWORK: ""}, ""),
    "network, omitted": (
        of_network, {NETWORK: "", OMIT: 'omit_dracutmodules+=" network "\n'},
        f"remove network from omit_dracutmodules in /{OMIT}",
    ),
    "network, no module": (of_network, {}, "install dracut-network"),
    "program, an older image": (of_program, {"usr/sbin/mkfs.ext4": ""}, ""),
    "program, none": (of_program, {}, "install e2fsprogs"),
    "command, none": (lambda root: remedy.program_missing("/opt/key", root), {}, "install it"),
    "command, an older image": (lambda root: remedy.program_missing("/opt/key", root), {"opt/key": ""}, ""),
    "disk, by a host-only image": (of_claim, {}, ""),
    "disk, by configuration": (
        of_claim, {"etc/dracut.conf.d/x.conf": 'kernel_cmdline+=" rd.luks.uuid=luks-aa "\n'},
        "remove rd.luks.uuid=luks-aa from kernel_cmdline in /etc/dracut.conf.d/x.conf",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_finding_has_a_step_that_helps(tmp_path: Path, case: str) -> None:
    of, files, first = CASES[case]
    hint = of(tree(tmp_path, **files))
    assert "rebuild it" in hint
    assert (hint == "rebuild it") is (not first), hint
    assert hint.startswith(first)


BLACKLIST = "ro module_blacklist=floppy,dm-crypt quiet"


@pytest.mark.parametrize(
    ("files", "command_line", "what", "rebuilt"),
    [
        ({}, "ro quiet", "", False),
        (
            {"etc/modprobe.d/x.conf": "install dm-crypt /bin/true\n"},
            "",
            'in it: "install dm-crypt /bin/true" from',
            True,
        ),
        ({"etc/modprobe.d/x.conf": "install usb-storage /bin/true\nblacklist dm_crypt\n"}, "", "", False),
        ({}, BLACKLIST, "by the kernel parameter module_blacklist", False),
    ],
)
def test_a_driver_that_is_there_and_cannot_be_loaded_is_found(
    tmp_path: Path, files: dict[str, str], command_line: str, what: str, *, rebuilt: bool
) -> None:
    found = list(kernel_modules.disabled(tree(tmp_path, **files), ("dm_crypt", "xts"), command_line))
    assert len(found) == bool(what)
    for one in found:
        assert what in one.what
        assert one.hint.endswith("rebuild it") is rebuilt


def test_a_damaged_agent_is_copied_from_an_installed_one_only_if_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Finding("x was changed", "rebuild it")
    for installed, hint in (([], "rebuild it"), ([problem], remedy.REINSTALL)):
        monkeypatch.setattr(agent, "bundle_findings", lambda *of, found=installed: [problem] if of else found)
        assert [one.hint for one in agent.damaged(tmp_path)] == [hint]


def test_what_to_type_is_said_where_a_rebuild_is_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dracut, "running_kernel", lambda: "6.1")
    path = Path("/boot/initrd.img-6.1")
    step = "install e2fsprogs, then rebuild it"
    assert image.next_step(step, path, "6.1") == f"{step}: cryptpilot initrd rebuild"
    assert image.next_step("remove it and boot", path, "6.1") == "remove it and boot"


def test_a_rebuild_that_fails_does_not_say_to_rebuild() -> None:
    plain, other = Finding("a", "rebuild it"), Finding("b", "install e2fsprogs, then rebuild it")
    assert "rebuild" not in remedy.of_new_image([plain])
    assert remedy.of_new_image([plain, other]) == "install e2fsprogs, then run this again"


def test_a_crash_kernels_image_needs_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = tree(tmp_path, **{"usr/lib/dracut/modules.txt": "base\nkdumpbase\n", "initrd": ""})
    content = image.UnpackedImage(unpacked, has_agent=False, record=None, size=0)
    said: list[str] = []
    monkeypatch.setattr(image_check, "required", record.make)
    monkeypatch.setattr(image, "unpacked", lambda *_, **__: contextlib.nullcontext(content))
    config = configure(tmp_path / "etc", GUIDE_OTP)
    assert record.make(config).volumes
    assert image_check.check(config, unpacked / "initrd", "6.1", said.append, lambda error, _: said.append(error.what))
    assert "crash kernel" in said[0]
