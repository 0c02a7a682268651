"""What is said of `required = true` where it does not hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cryptpilot_boot.boot.console import result
from cryptpilot_boot.boot.plan import before_network
from cryptpilot_boot.boot.stage import Outcome
from cryptpilot_boot.config import Boot, Config, Exec, Kms, Volume, files
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.units.fstab import parse
from cryptpilot_boot.units.required import doubts

KMS = Kms("kst-1", "secret", "{}", "password", "pem")
DATA = Volume("my-data", "/dev/vdb", Exec("cat"), Path("/v/data.toml"), auto_open=True, required=True)
LINE = "/dev/mapper/my-data /data ext4"


@pytest.mark.parametrize(
    ("one", "text", "said"),
    [
        (DATA, f"{LINE} defaults", []),
        (dataclasses.replace(DATA, encrypt=KMS), f"{LINE} defaults", []),
        (dataclasses.replace(DATA, required=False, auto_open=False), f"{LINE} nofail", []),
        (dataclasses.replace(DATA, auto_open=False), LINE, ["no effect without auto_open = true"]),
        (DATA, "# nothing", ["no line of /etc/fstab names /dev/mapper/my-data"]),
        (DATA, f"\n{LINE} noatime,nofail", ["/etc/fstab:2: nofail has no effect, because /v/data.toml says"]),
        (DATA, f"{LINE} noauto", ["/etc/fstab:1: is not mounted at boot (noauto)"]),
        (DATA, f"{LINE} noauto,x-systemd.automount", ["is not mounted at boot (noauto,x-systemd.automount)"]),
        (DATA, f"{LINE} _netdev", ["/etc/fstab:1: _netdev lets services start before"]),
        (dataclasses.replace(DATA, encrypt=KMS, initrd=False), LINE, ["remove initrd = false"]),
    ],
)
def test_what_contradicts_it_is_named_with_its_line(one: Volume, text: str, said: list[str]) -> None:
    found = list(doubts(one, parse(text)))
    assert len(found) == len(said)
    for sentence, part in zip(found, said):
        assert part in sentence


@pytest.mark.parametrize("required", [False, True])
def test_the_initrd_waits_for_one_that_has_its_key_over_the_network(required: bool) -> None:
    """In the booted system local-fs.target waits for it, and the network perhaps for local-fs.target."""
    one = dataclasses.replace(DATA, encrypt=KMS, required=required)
    assert before_network(f"{LINE} defaults", [one]) == ({one.volume} if required else set())


@pytest.mark.parametrize("required", [False, True])
def test_the_console_says_that_the_boot_stops_and_how_it_goes_on(required: bool) -> None:
    one = dataclasses.replace(DATA, required=required)
    lines = result(Outcome(one, "system", 90.0, DeviceError("/dev/vdb did not appear within 90 s", "attach it")))
    stops = "  now:      required = true: the boot stops, in emergency mode, if fstab mounts it"
    again = "  again:    systemctl restart 'cryptpilot@my\\x2ddata.service' && systemctl default"
    assert ((stops in lines), (again in lines)) == (required, required)


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("required = true\nauto_opne = true\n", False),
        ("'required'=true # for it is\n", False),
        ("# required = true\n", True),
        ("required = false\n", True),
        ("not TOML at all", True),
    ],
)
def test_a_file_that_cannot_be_used_and_may_say_so_leaves_its_mount_required(
    tmp_path: Path, text: str, alone: bool
) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/data.toml").write_text(text)
    names = files.unusable(Config(tmp_path, Boot(), ()))
    assert names == ({"data"} if alone else set())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('volume = "data"\nauto_opne = true\n', {"data"}),
        ("  'volume'='data' # it\n", {"data"}),
        ('volume = "data"\nrequired = true\n', None),
        ('# volume = "data"\n', set()),
        ('volume = "../data"\n', set()),
        ('volume = "data\n', set()),
        ('volume = "other"\nvolume = "data"\n', {"other", "data"}),
        ('volume = "needed"\n', set()),
        ('volume = "20-needed"\n', set()),
    ],
)
def test_a_file_that_cannot_be_used_makes_the_mount_of_its_volume_optional(
    tmp_path: Path, text: str, names: set[str] | None
) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/10-data.toml").write_text(text)
    (tmp_path / "volumes/20-needed.toml").write_text("volume = 'needed'\nrequired = true\n")
    found = files.unusable(Config(tmp_path, Boot(), ()))
    assert found == (set() if names is None else {"10-data", *names})
