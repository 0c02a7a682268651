"""One place decides what may stand in a line, a unit's name and a path."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import names
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.config import load
from cryptpilot_boot.system import init
from cryptpilot_boot.units.units import units
from tests.unit.test_config import EXEC, OTHER, ROLE, SMALL, complaint, configure

if TYPE_CHECKING:
    from pathlib import Path

LONG_NAME = "a" + 55 * "-"
LONGEST_NAME = "a" + 54 * "-" + "aa"


@pytest.mark.parametrize("name", [LONG_NAME, "a" + 99 * "-", "v" + 99 * "@", "+" * 100])
def test_a_name_that_no_unit_can_have_is_refused(tmp_path: Path, name: str) -> None:
    text = SMALL.replace('"v"', f'"{name}"')
    assert '"volume" is ' in complaint(tmp_path, text)
    if name[0] != "+":
        assert "too long for the names of systemd's units: it takes" in complaint(tmp_path, text)


@pytest.mark.parametrize("name", [LONGEST_NAME, "a" * 100, "0:" * 50, "data-disk_1.x"])
def test_the_longest_names_are_taken_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    configure(tmp_path / "etc", f"auto_open = true\n{SMALL}".replace('"v"', f'"{name}"'))
    monkeypatch.setattr(init, "fstab", lambda: f"/dev/mapper/{name} /data ext4\n")
    for directory in ("normal", "early"):
        (tmp_path / directory).mkdir()
    arguments = [str(tmp_path / directory) for directory in ("normal", "early", "late")]
    assert cli.main(["-c", str(tmp_path / "etc"), "generator", *arguments]) == 0
    assert list((tmp_path / "normal").glob("dev-mapper-*.device.requires/cryptpilot@*.service"))


def test_what_no_unit_can_be_called_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator leaves it out and says so where a generator can: all other units are written."""
    said: list[str] = []
    monkeypatch.setattr(init, "kernel_log", said.append)
    disk = "/dev/disk/by-id/" + 80 * "-x"
    configure(tmp_path / "etc", f"auto_open = true\n{SMALL}".replace("/dev/x", disk), f"auto_open = true\n{OTHER}")
    lines = f"/dev/mapper/v /{'-' * 80}\n/dev/mapper/v /a\\012b ext4\n/dev/mapper/w /data ext4\n"
    monkeypatch.setattr(init, "fstab", lambda: lines)
    for directory in ("normal", "early"):
        (tmp_path / directory).mkdir()
    arguments = [str(tmp_path / directory) for directory in ("normal", "early", "late")]
    assert cli.main(["-c", str(tmp_path / "etc"), "generator", *arguments]) == 0
    written = {str(path.relative_to(tmp_path / "normal")) for path in (tmp_path / "normal").rglob("*.*/*")}
    assert written == {
        *(f"dev-mapper-{one}.device.requires/cryptpilot@{one}.service" for one in "vw"),
        *(f"dev-mapper-{one}.device.d/45-cryptpilot.conf" for one in "vw"),
        "systemd-cryptsetup@.service.d/45-cryptpilot.conf",
        "systemd-fsck@.service.d/45-cryptpilot.conf",
        *(f"cryptpilot.service.wants/cryptpilot@{one}.service" for one in "vw"),
        "dev-y.device.wants/cryptpilot@w.service",
        "local-fs.target.wants/data.mount",
    }
    too_long = "its name has more than 255 bytes"
    assert said == [
        f"v is not opened when its disk is attached: {disk} as a unit: {too_long}",
        f"the line of fstab that begins with /dev/mapper/v is left as it is: {too_long}",
        "the line of fstab that begins with /dev/mapper/v is left as it is: it has a line feed",
    ]


DEVICES = [
    ("/dev/disk/by-label/a\\\\x20b", True),
    ("/dev/disk/by-label/größe", True),
    ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1.0-part1", True),
    ("/dev/disk/by-id/usb-Foo,Bar%1~x!y", True),
    ("/dev/cciss/c0d0", True),
    ("/dev/vdz\\nconfig /etc/shadow", False),
    ("/dev/vdz\\rconfig", False),
    ("/dev/vdz config", False),
    ("/dev/vdz\\u2028config", False),
    ("/dev/vdz\\u0085config", False),
    ("/dev/" + 256 * "x", False),
    ("/dev" + 2046 * "/x", False),
    ("/dev/x/../../etc/passwd", False),
    ("/etc/passwd", False),
]


@pytest.mark.parametrize(("path", "good"), DEVICES, ids=[path[:30] for path, _ in DEVICES])
def test_a_device_is_what_udev_can_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: str, good: bool
) -> None:
    config = configure(tmp_path, f"auto_open = true\n{SMALL}".replace("/dev/x", path))
    assert (len(config.volumes), len(config.problems)) == ((1, 0) if good else (0, 1))
    assert cli.main(["-c", str(tmp_path), "initrd", "plan"]) == (0 if good else 2)
    out = capsys.readouterr().out
    assert "shadow" not in out
    if good:
        assert f"device {config.volumes[0].dev}\n" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EXEC + f"args = ['{'x' * 131072}']\n", "is more than the kernel passes to a program"),
        (EXEC + "args = [" + "'x'," * 70000 + "]\n", "is more than the kernel passes to a program"),
        (EXEC.replace("get-key", "/" + 256 * "x"), "is longer than a path may be"),
        (EXEC.replace("get-key", 256 * "x"), "is longer than a path may be"),
        (ROLE + f'\nendpoint = "{"x" * 254}"\n', 'must be "host" or "host:port"'),
        (ROLE + '\nendpoint = "host\\u0000"\n', 'must be "host" or "host:port"; it holds U+0000, NUL'),
    ],
)
def test_what_the_kernel_does_not_take_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


@pytest.mark.parametrize("name", ["my volumes", "blank ", "größe", "a\\b", "$(reboot)", "*"])
def test_a_line_carries_any_path_that_a_shell_reads_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    directory = tmp_path / name
    configure(directory, f"auto_open = true\n{SMALL}")
    assert cli.main(["-c", str(directory), "initrd", "plan"]) == 0
    out = capsys.readouterr().out
    read = 'while read -r kind value; do [ "$kind" != config ] || printf "%s\\n" "$value"; done'
    found = subprocess.run(["bash", "-c", read], input=out, capture_output=True, text=True, check=True).stdout
    assert found == f"{directory}/volumes/v0.toml\n"


@pytest.mark.parametrize("name", ["a\nconfig ", "a\x1b[m", "a\u2028b"])
def test_no_line_is_printed_that_it_does_not(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    configure(directory, f"auto_open = true\n{SMALL}")
    status = cli.main(["-c", str(directory), "initrd", "plan"])
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert "cannot stand in a line" in said.err


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd is not installed")
def test_systemd_escapes_as_we_do() -> None:
    texts = ["data", "a-b", ".hidden", "größe", "a b", "\\x20", "-", "a:b_c.d", "a+b=c@d#e", "/", "//", "ü" * 20]
    for options, ours in (([], names.escape), (["--path"], names.escape_path)):
        mine = [text if text.startswith("/") or not options else f"/{text}/x" for text in texts]
        told = subprocess.run(["systemd-escape", *options, "--", *mine], capture_output=True, text=True, check=True)
        assert told.stdout.splitlines()[-1].split(" ") == [ours(text) for text in mine]


def test_a_unit_of_a_mount_holds_one_line_for_each_setting() -> None:
    made = units([], "", [], 90)
    assert made.skipped == []
    made = units([], "/dev/mapper/v /a\\012ExecStart=/x ext4 ro\n", [], 90, ["v"])
    assert made.masks == []
    assert len(made.skipped) == 1
    assert names.volume_unit("a-b") == "cryptpilot@a\\x2db.service"


def test_a_word_in_the_kernels_log_cannot_fail(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.touch()
    init.kernel_log("a\nb" + 2000 * "x", str(log))
    (line,) = log.read_text().splitlines()
    assert line.startswith("<28>cryptpilot: a b")
    assert len(line) < 900
    init.kernel_log("a", str(tmp_path / "none"))


def test_a_configuration_in_use_stays_one(tmp_path: Path) -> None:
    configure(tmp_path, SMALL, OTHER, EXEC.replace('"v"', '"e"').replace("/dev/x", "/dev/z"))
    assert (len(load(tmp_path).volumes), load(tmp_path).problems) == (3, ())
