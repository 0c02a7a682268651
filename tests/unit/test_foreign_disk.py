"""Somebody else's LUKS disk under a volume's path: names of disks change between boots, and it is left alone."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.boot import parameters
from cryptpilot_boot.commands import competing
from cryptpilot_boot.config import Exec, Volume
from cryptpilot_boot.system import block, init
from cryptpilot_boot.units.competing import Texts, find
from cryptpilot_boot.units.units import units

SCRIPT = ROOT / "systemd/cryptpilot-unless-ours"
MODULE = ROOT / "dracut/95cryptpilot/module-setup.sh"
DATA = Volume("data", "/dev/nvme1n1p2", Exec("cat"), Path("/v/data.toml"), auto_open=True)
LINKS = {"/dev/disk/by-uuid/aaaa": "/dev/nvme1n1p2"}
LEFT_ALONE, PASSED_OVER = 0, 1


def header(version: int, subsystem: bytes, magic: bytes = b"LUKS\xba\xbe") -> bytes:
    """Return how a device begins; the subsystem at byte 208, as the LUKS2 On-Disk Format Specification has it."""
    return (magic + version.to_bytes(2, "big")).ljust(208, b"\xff") + subsystem.ljust(48, b"\0") + bytes(4096)


HEADERS = [
    (header(2, b"cryptpilot"), PASSED_OVER),
    (header(2, b"cryptpilot-initializing"), PASSED_OVER),
    (header(2, b"cryptpilot-otp"), PASSED_OVER),
    (header(2, b""), LEFT_ALONE),
    (header(2, b"anaconda"), LEFT_ALONE),
    (header(2, b"cryptpilot-of-another-kind"), LEFT_ALONE),
    (header(2, b"*"), LEFT_ALONE),
    (header(1, b"\0\xac\x71\xf3"), LEFT_ALONE),
    (header(2, b"anaconda", magic=b"SKUL\xba\xbe"), PASSED_OVER),
    (b"", PASSED_OVER),
    (bytes(4096), PASSED_OVER),
    (b"LUKS", PASSED_OVER),
]


class Script:
    """The script on a machine of files: a unit that opens `disk`, which is the device of a volume."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = root / "disk"
        self.disk.write_bytes(b"")
        self.initrd, self.words, self.own = root / "initrd-release", root / "words", root / "cmdline"
        (root / "cmdline.d").mkdir()
        (root / "systemctl").write_text(
            f"#!/bin/sh\necho 'ExecStart={{ path=/x ; argv[]=/x attach home {self.disk} none luks ; }}'\n"
        )
        (root / "systemctl").chmod(0o755)
        text = SCRIPT.read_text().replace("[ -b ", "[ -e ")  # no test can make a block device everywhere
        places = (("/proc/cmdline", self.words), ("/etc/cmdline", self.own), ("/etc/initrd-release", self.initrd))
        for name, path in places:
            text = text.replace(name, str(path))
        (root / "script").write_text(text)

    def run(self, words: str, *, shell: str = "sh") -> int:
        self.words.write_text(f"{words}\n")
        return self.ask("unit", str(self.disk), shell=shell)

    def ask(self, *arguments: str, shell: str = "sh") -> int:
        path = {"PATH": f"{self.root}:{os.environ['PATH']}"}
        command = [shell, str(self.root / "script"), *arguments]
        ended = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        return ended.returncode


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(("begin", "status"), HEADERS)
def test_a_unit_for_somebody_elses_disk_is_started(script: Script, begin: bytes, status: int, shell: str) -> None:
    script.disk.write_bytes(begin)
    assert script.run("quiet", shell=shell) == status
    assert script.ask("--foreign", str(script.disk), shell=shell) == (0 if status == LEFT_ALONE else 1)


@pytest.mark.parametrize(("begin", "status"), HEADERS)
def test_a_line_of_crypttab_for_somebody_elses_disk_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes, status: int
) -> None:
    (tmp_path / "disk").write_bytes(begin)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(block, "is_block_device", os.path.exists)
    monkeypatch.setattr(init, "crypttab", lambda: f"home {tmp_path}/link /etc/home.key luks\n")
    monkeypatch.setattr(init, "kernel_command_line", lambda: "quiet")
    monkeypatch.setattr(init, "fstab", lambda: "/dev/mapper/home /home ext4 defaults 0 2\n")
    one = Volume("data", str(tmp_path / "disk"), Exec("cat"), Path("/v/data.toml"), auto_open=True)
    assert [found.volume for found in competing.find([one])] == ["data", "data"][: 2 * status]


def test_a_disk_that_cannot_be_read_is_taken_for_what_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    (tmp_path / "directory").mkdir()
    monkeypatch.setattr(block, "is_block_device", os.path.exists)
    monkeypatch.setattr(init, "crypttab", lambda: f"home {tmp_path}/directory /etc/home.key luks\n")
    monkeypatch.setattr(init, "kernel_command_line", lambda: "")
    monkeypatch.setattr(init, "fstab", lambda: "")
    one = Volume("data", str(tmp_path / "directory"), Exec("cat"), Path("/v/data.toml"), auto_open=True)
    assert [found.mapping for found in competing.find([one])] == ["home"]
    assert script.ask("--foreign", str(tmp_path / "directory")) == 1
    assert script.ask("--foreign", str(tmp_path / "absent")) == 1


def test_what_is_mounted_of_somebody_elses_disk_stays_required() -> None:
    texts = Texts("home UUID=aaaa /etc/home.key luks\n", "luks.uuid=aaaa", "/dev/mapper/home /home ext4 defaults 0 2\n")
    found = find([DATA], texts, lambda path: LINKS.get(path, path), lambda path: path in LINKS)
    made = units([DATA], texts.fstab, [], 60, (), found)
    assert (found, made.instead, made.masks) == ([], {}, [])


def test_a_volumes_name_is_its_own_whatever_disk_it_is_for() -> None:
    found = find([DATA], Texts("data UUID=aaaa none\n"), lambda path: LINKS.get(path, path), lambda _: True)
    assert [one.mapping for one in found] == ["data"]


SWITCHES = ["", "=", "=0", "=no", "=NO", "=n", "=f", "=False", "=oFF", "=1", "=Yes", "=t", "=on", "=maybe", "=no=x"]
LINES = [
    *[f"quiet {name}{value}" for name in ("cryptpilot", "rd.cryptpilot") for value in SWITCHES],
    *[" ".join(pair) for pair in itertools.permutations(["cryptpilot=no", "cryptpilot", "rd.cryptpilot=f"], 2)],
    "cryptpilot=no cryptpilot=maybe",
    "rd.cryptpilot=yes cryptpilot=no",
    "rd.cryptpilot=no rd.cryptpilot=on",
    'x="a cryptpilot=no b"',
    '"cryptpilot=no"',
    'cryptpilot="no"',
    'cryptpilot="n"o quiet',
    'cryptpilot="no "',
    'cryptpilot=" no"',
    'x="" cryptpilot=off y="',
    'quiet x="a cryptpilot=no',
    "xcryptpilot=no cryptpilot.verbose=no rd.cryptpilot.volume=no",
    "cryptpilot=*",
]


@pytest.mark.parametrize("words", LINES)
def test_the_kernel_command_line_is_read_as_the_agent_reads_it(script: Script, words: str) -> None:
    for initrd in (False, True):
        if initrd:
            script.initrd.touch()
        status = PASSED_OVER if parameters.parse(f"{words}\n", initrd=initrd).on else LEFT_ALONE
        assert script.run(words) == status, f"in {'an initrd' if initrd else 'the system'}"


def test_words_of_an_image_count_in_an_initrd_and_before_the_boot_loaders(script: Script) -> None:
    script.own.write_text("root=/dev/x\ncryptpilot=no")
    (script.root / "cmdline.d/50-x.conf").write_text("cryptpilot=yes\n")
    assert script.run("quiet") == PASSED_OVER
    script.initrd.touch()
    assert script.run("quiet") == LEFT_ALONE
    assert script.run("cryptpilot=yes") == PASSED_OVER
    script.own.unlink()
    assert script.run("quiet") == PASSED_OVER


@pytest.mark.parametrize(("foreign", "kept"), [(0, True), (1, False)])
def test_an_image_keeps_its_line_of_crypttab_for_somebody_elses_disk(tmp_path: Path, foreign: int, kept: bool) -> None:
    for name in ("etc", "usr/libexec"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "disk").touch()
    (tmp_path / "home").symlink_to("disk")
    (tmp_path / "etc/crypttab").write_text(f"home {tmp_path}/home none\n")
    (tmp_path / "usr/libexec/cryptpilot-unless-ours").write_text(
        f'#!/bin/sh\n[ "$*" = "--foreign {tmp_path}/disk" ] || exit 3\nexit {foreign}\n'
    )
    (tmp_path / "usr/libexec/cryptpilot-unless-ours").chmod(0o755)
    script = f"initdir=$1 dracutsysrootdir=$1; . {MODULE}; _claim_crypttab $1/disk"
    subprocess.run(["bash", "-c", script, "bash", str(tmp_path)], check=True)
    assert bool((tmp_path / "etc/crypttab").read_text()) == kept
