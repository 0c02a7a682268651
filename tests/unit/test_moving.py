"""What scripts and units of the existing Rust implementation say, and what they read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.commands import show
from cryptpilot_boot.config import load
from tests.unit.test_config import GUIDE_OTP, ROLE, configure

if TYPE_CHECKING:
    from collections.abc import Sequence

ANYWHERE = [
    ["-c", "/x", "show"],
    ["show", "-c", "/x"],
    ["show", "--json", "--config-dir", "/x"],
    ["show", "--config-dir=/x", "data0"],
    ["open", "data0", "-c", "/x", "--check-fs"],
    ["-c", "/y", "close", "data0", "-c", "/x"],
    ["config", "-c", "/x", "check"],
    ["config", "check", "--keep-checking", "-c", "/x"],
    ["boot-service", "--stage", "system", "-c", "/x"],
    ["header", "backup", "data0", "/file", "-c", "/x"],
    ["initrd", "rebuild", "-c", "/x", "--", "-c", "/of/dracut"],
    ["-d", "/x", "init", "data0"],
    ["init", "data0", "-d", "/x"],
]


@pytest.mark.parametrize("words", ANYWHERE, ids=" ".join)
def test_the_configuration_is_named_anywhere(words: Sequence[str]) -> None:
    assert parse(words).config_dir == Path("/x")


@pytest.mark.parametrize("command", ["show", "config check", "initrd status", "adopt data1"])
def test_it_is_etc_where_it_is_not_named(command: str) -> None:
    assert parse(command.split()).config_dir == Path("/etc/cryptpilot")


def test_a_directory_that_is_missing_is_no_other_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["show", "-c"])
    assert ended.value.code == 2
    assert "expected one argument" in capsys.readouterr().err


def test_the_booted_system_has_two_names() -> None:
    assert parse(["boot-service", "--stage", "system-volumes-auto-open"]).stage == "system"


@pytest.mark.parametrize("stage", ["initrd-fde-before-sysroot", "System", ""])
def test_another_stage_is_refused(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["boot-service", "--stage", stage])
    assert "invalid choice" in capsys.readouterr().err


def test_no_key_provider_is_asked_by_the_older_name_of_that_too() -> None:
    asks, skips = parse(["config", "check"]), parse(["config", "check", "--skip-check-key"])
    assert (asks.skip_check_passphrase, skips.skip_check_passphrase) == (False, True)


def test_what_destroys_data_knows_every_volume() -> None:
    """A file that cannot be used may hide a volume that has the device."""
    plain, overwriting = parse(["open", "a"]), parse(["open", "a", "--overwrite", "ext4"])
    assert (plain.needs_all_files, overwriting.needs_all_files) == (False, True)


def test_show_has_the_keys_of_both_and_no_credentials(tmp_path: Path) -> None:
    otp = GUIDE_OTP.replace('"data0"', '"scratch"').replace("/dev/nvme1n1p1", "/dev/absent")
    configure(tmp_path, ROLE + 'kms_instance_id = "kst-1"\n', otp)
    data, scratch = json.loads(show.show(load(tmp_path), [], as_json=True)[0])
    assert (data["underlay_device"], data["underlying_device"]) == ("/dev/x", "/dev/x")
    assert (data["device_exists"], data["needs_initialize"], data["initialized"]) == (False, True, False)
    assert data["extra_options"] == {"auto_open": False, "integrity": False}
    assert data["description"] == "device-not-found: /dev/x: no such block device"
    assert scratch["needs_initialize"] is False
    assert scratch["extra_options"] == {"auto_open": True, "makefs": "ext4", "integrity": True}
    assert "key_provider_options" not in data
    columns = ["Underlying Device", "Key Provider", "Extra Options", "Initialized", "Opened"]
    header, *_ = show.show(load(tmp_path), [], as_json=False)
    assert re.split("  +", header)[2:7] == columns
