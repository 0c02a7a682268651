"""The command line: what it says, and the exit status it ends with."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import Any

import pytest

import cryptpilot_boot
from cryptpilot_boot import cli
from tests.unit.test_config import GUIDE_KMS, GUIDE_OTP, configure


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command line and return its exit status, standard output and standard error."""
    try:
        status = cli.main(argv)
    except SystemExit as end:
        status = int(end.code or 0)
    output = capsys.readouterr()
    return status, output.out, output.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"cryptpilot {cryptpilot_boot.__version__}\n", "")


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys)
    assert status == cli.EXIT_USAGE
    assert "usage: cryptpilot" in err


def test_a_bad_configuration_is_a_usage_error_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configure(tmp_path)
    (tmp_path / "volumes" / "v.toml").write_text("volume = 3\n")
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert (status, out) == (cli.EXIT_USAGE, "")
    assert err == f'cryptpilot: error: {tmp_path}/volumes/v.toml:1: "volume" must be a string\n'


def test_a_wrong_volume_gets_the_nearest_right_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP)
    status, _, err = run(capsys, "-c", str(tmp_path), "open", "dat0")
    assert status == cli.EXIT_USAGE
    assert 'no volume "dat0" is configured' in err
    assert 'did you mean "data0"?' in err


def test_a_failure_is_told_with_the_next_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP.replace("/dev/nvme1n1p1", "/dev/not-there"))
    status, _, err = run(capsys, "-c", str(tmp_path), "open", "data0")
    assert status == cli.EXIT_FAILED
    assert err.splitlines() == [
        "cryptpilot: error: /dev/not-there: no such device",
        'cryptpilot:   check "dev" in the configuration against the output of lsblk',
    ]


def test_a_device_that_is_not_there_is_a_state_to_show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS.replace("/dev/nvme1n1p1", "/dev/not-there"))
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert (status, err) == (0, "")
    header, _, row = out.splitlines()
    assert header.split()[:2] == ["Volume", "Volume"]
    assert row.split()[:4] == ["data0", "/dev/mapper/data0", "/dev/not-there", "kms"]
    assert "device-not-found: /dev/not-there: no such block device" in row


def test_warnings_do_not_stop_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS)
    (tmp_path / "volumes" / "v0.toml").chmod(0o644)
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert status == 0
    assert "data0" in out
    assert "warning:" in err
    assert "holds a client key and can be read by others" in err


def test_what_the_image_needs_is_printed_for_a_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS, settings="[boot]\n")
    status, out, _ = run(capsys, "-c", str(tmp_path), "initrd", "plan")
    lines = out.splitlines()
    assert status == 0
    assert lines[:2] == [f"config {tmp_path}/global.toml", f"config {tmp_path}/volumes/v0.toml"]
    assert "program cryptsetup" in lines
    assert "module dm_crypt" in lines
    assert lines[-1] == "network yes"


def test_a_bug_is_told_without_the_values_it_tripped_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(*_: Any) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(cli, "load", trip)
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert status == cli.EXIT_FAILED
    assert "hunter2" not in out + err
    assert "internal error: RuntimeError at main:" in err


def test_no_core_is_dumped_and_nobody_else_looks_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "-c", str(tmp_path), "show")
    assert resource.getrlimit(resource.RLIMIT_CORE) == (1, 1)
    assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


PR_GET_DUMPABLE = 3  # <linux/prctl.h>
