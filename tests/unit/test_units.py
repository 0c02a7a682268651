"""What systemd is told of the volumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cryptpilot_boot.config import Identity, Kms, Otp, Volume
from cryptpilot_boot.names import escape, escape_path
from cryptpilot_boot.units.units import Units, misread, mount, units

KMS = Kms("kst-1", "secret", "{}", "password", "pem")


def volume(name: str, *, kms: bool = False, dev: str = "") -> Volume:
    source = Path(f"/etc/cryptpilot/volumes/{name}.toml")
    return Volume(name, dev or f"/dev/{name}", KMS if kms else Otp(), source, auto_open=True)


def device_files(made: Units) -> dict[str, str]:
    return {name: text for name, text in made.files.items() if not name.startswith("systemd-")}


def lines_of(made: Units) -> dict[str, str]:
    return {name: entry.line for name, entry in made.netdev.items()}


# as systemd-escape has them
@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("data0", "data0"),
        ("my-data", "my\\x2ddata"),
        (".hidden.x", "\\x2ehidden.x"),
        ("a#+=@:_", "a\\x23\\x2b\\x3d\\x40:_"),
        ("ä", "\\xc3\\xa4"),
        ("a/b", "a-b"),
    ],
)
def test_a_name_is_escaped_as_systemd_does(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("/", "-"),
        ("/dev/disk/by-id/virtio-a", "dev-disk-by\\x2did-virtio\\x2da"),
        ("//dev/./vda1/", "dev-vda1"),
        ("/.snapshots", "\\x2esnapshots"),
        ("/my dir", "my\\x20dir"),
    ],
)
def test_a_path_is_escaped_as_systemd_does(path: str, escaped: str) -> None:
    assert escape_path(path) == escaped


def test_a_volume_is_wired_to_its_devices_and_the_helper() -> None:
    made = units([volume("my-data", dev="/dev/disk/by-id/x")], "", [], 90)
    service = "cryptpilot@my\\x2ddata.service"
    assert set(made.links) == {
        f"dev-mapper-my\\x2ddata.device.requires/{service}",
        f"cryptpilot.service.wants/{service}",
        f"dev-disk-by\\x2did-x.device.wants/{service}",
    }
    drop_in = {"dev-mapper-my\\x2ddata.device.d/45-cryptpilot.conf": "[Unit]\nJobTimeoutSec=120\n"}
    assert device_files(made) == drop_in, "longer than the helper has, but not for ever: some devices never come"
    assert (made.masks, made.netdev) == ([], {})


@pytest.mark.parametrize(("makefs", "limit"), [("ext4", "infinity"), (None, "120")])
def test_who_waits_for_a_volume_that_is_made_anew_waits_as_long_as_that_takes(makefs: str | None, limit: str) -> None:
    """What is to hold something else is no device to systemd, and waited for in vain."""
    made = units([dataclasses.replace(volume("scratch"), makefs=makefs)], "", [], 90)
    assert list(device_files(made).values()) == [f"[Unit]\nJobTimeoutSec={limit}\n"]


@pytest.mark.parametrize(
    ("required", "bound", "ask", "limit"),
    [
        (True, True, True, "infinity"),
        (True, True, False, "120"),
        (False, True, True, "120"),
        (True, False, True, "120"),
    ],
)
def test_who_waits_for_a_volume_whose_key_a_person_types_waits_as_long_as_that_takes(
    required: bool, bound: bool, ask: bool, limit: str
) -> None:
    identity = Identity("", frozenset(["a"]), Path("/identity")) if bound else None
    one = dataclasses.replace(volume("data", kms=True), required=required, identity=identity)
    made = units([one], "", [], 90, ask=ask)
    assert list(device_files(made).values()) == [f"[Unit]\nJobTimeoutSec={limit}\n"]


def test_a_mount_that_fails_fails_alone() -> None:
    made = units([volume("data")], "/dev/mapper/data /srv/my\\040data ext4 defaults 0 2\n", [], 90)
    assert made.masks == ["local-fs.target.requires/srv-my\\x20data.mount"]
    assert made.links["local-fs.target.wants/srv-my\\x20data.mount"] == "../srv-my\\x20data.mount"
    assert made.netdev == {}


def test_swap_too() -> None:
    made = units([volume("swap0")], "/dev/mapper/swap0 none swap sw 0 0\n", [], 90)
    assert made.masks == ["swap.target.requires/dev-mapper-swap0.swap"]
    assert "swap.target.wants/dev-mapper-swap0.swap" in made.links


def test_a_mount_that_waits_for_the_network_is_a_remote_one() -> None:
    line = "/dev/mapper/data  /data ext4 noatime 0 2"
    made = units([volume("data", kms=True)], f"{line}\n", [], 90)
    assert lines_of(made) == {"data.mount": "/dev/mapper/data /data ext4 noatime,_netdev 0 2"}
    assert set(made.masks) == {"local-fs.target.requires/data.mount", "remote-fs.target.requires/data.mount"}
    assert "remote-fs.target.wants/data.mount" in made.links
    assert "local-fs.target.wants/data.mount" not in made.links


def test_what_is_open_already_waits_for_no_network() -> None:
    made = units([volume("data", kms=True)], "/dev/mapper/data /data ext4 defaults\n", ["data"], 90)
    assert made.netdev == {}
    assert "local-fs.target.wants/data.mount" in made.links


def test_what_says_netdev_itself_is_left_a_remote_one() -> None:
    made = units([volume("data", kms=True)], "/dev/mapper/data /data ext4 _netdev\n", [], 90)
    assert made.netdev == {}
    assert made.masks == ["remote-fs.target.requires/data.mount"]


def test_what_is_mounted_below_or_from_a_volume_goes_with_it() -> None:
    """Or else they would require what the network waits for, and send the machine to emergency mode."""
    lines = """\
/dev/vdc /data/sub ext4 defaults
/data/sub/dir /srv none bind
/dev/vdd /opt ext4 x-systemd.requires-mounts-for=/srv
/dev/mapper/data /data ext4 defaults
/dev/vde /database ext4 defaults
"""
    made = units([volume("data", kms=True)], lines, [], 90)
    assert {entry.where for entry in made.netdev.values()} == {"/data", "/data/sub", "/srv", "/opt"}
    assert {name for name in made.links if name.startswith("remote-fs")} == {
        f"remote-fs.target.wants/{name}.mount" for name in ("data", "data-sub", "srv", "opt")
    }
    local = units([volume("data")], lines, [], 90)
    assert local.netdev == {}
    assert {f"local-fs.target.requires/{name}.mount" for name in ("data", "data-sub", "srv", "opt")} == set(local.masks)


def test_the_mount_of_a_volume_whose_file_cannot_be_used_fails_alone() -> None:
    made = units([], "/dev/mapper/broken /data ext4 defaults", [], 90, {"broken"})
    assert made.masks == ["local-fs.target.requires/data.mount"]
    assert set(made.links) == {"local-fs.target.wants/data.mount"}


def test_of_what_stands_in_octal_systemd_reads_blanks_and_backslashes_alone() -> None:
    made = units([volume("data")], "/dev/mapper/data\t/srv/\\303\\040\\134\\\\\u00a0x ext4 defaults", [], 90)
    assert made.masks == ["local-fs.target.requires/srv-\\x5c303\\x20\\x5c\\x5c\\xc2\\xa0x.mount"]


@pytest.mark.parametrize(
    ("line", "understood"),
    [
        ("/dev/mapper/data /data", "/dev/mapper/data /data auto defaults,_netdev"),
        ("/dev/mapper/data /data ext4", "/dev/mapper/data /data ext4 defaults,_netdev"),
        ("\t/dev/mapper/data /my\\040data ext4 ro 0", "/dev/mapper/data /my\\040data ext4 ro,_netdev 0"),
    ],
)
def test_a_line_may_leave_out_what_systemd_does_without(line: str, understood: str) -> None:
    made = units([volume("data", kms=True)], line, [], 90)
    assert list(lines_of(made).values()) == [understood]


def test_a_mount_is_called_after_where_a_link_leads() -> None:
    def resolve(path: str) -> str:
        return f"/var{path}" if path.startswith("/home") else path

    lines = "/dev/mapper/data /home ext4\n/dev/vdb /var/home/sub ext4\n"
    made = units([volume("data", kms=True)], lines, [], 90, resolve=resolve)
    names = {"var-home.mount", "var-home-sub.mount"}
    assert set(made.masks) == {
        f"{target}.target.requires/{one}" for one in names for target in ("local-fs", "remote-fs")
    }


@pytest.mark.parametrize("where", ["/var", "/var/", "/var/log", "/var/log/journal", "/var/lib/systemd/pstore"])
def test_what_systemd_needs_before_the_network_does_not_wait_for_it(where: str) -> None:
    """It would be a cycle: the network comes after basic.target, which comes after what needs this."""
    lines = f"/dev/mapper/data {where} ext4\n/dev/mapper/db /var/lib/mysql ext4\n/dev/mapper/late /srv ext4\n"
    made = units([volume(name, kms=True) for name in ("data", "db", "late")], lines, [], 90)
    assert {entry.where for entry in made.netdev.values()} == {"/var/lib/mysql", "/srv"}
    name = f"{escape_path(where)}.mount"
    assert f"local-fs.target.requires/{name}" in made.masks, "it fails alone"
    assert f"local-fs.target.wants/{name}" in made.links
    files = made.files
    assert "JobTimeoutSec=15\n" in files["dev-mapper-data.device.d/45-cryptpilot.conf"], "it is not waited for in vain"
    assert "JobTimeoutSec=120\n" in files["dev-mapper-late.device.d/45-cryptpilot.conf"]


@pytest.mark.parametrize(
    "needs_it",
    ["/data/log /var/log none bind", "/dev/vdb /tmp ext4 x-systemd.requires-mounts-for=/data", "/data/file none swap"],
)
def test_what_such_a_line_cannot_do_without_does_not_either(needs_it: str) -> None:
    made = units([volume("data", kms=True)], f"/dev/mapper/data /data ext4\n{needs_it}\n", [], 90)
    assert made.netdev == {}
    assert "JobTimeoutSec=15\n" in made.files["dev-mapper-data.device.d/45-cryptpilot.conf"]


@pytest.mark.parametrize(
    ("one", "opened", "options"),
    [
        (volume("data"), [], "defaults"),
        (volume("data", kms=True), ["data"], "defaults"),
        (volume("data", kms=True), [], "_netdev"),
    ],
    ids=["without the network", "open", "as he wants it"],
)
def test_what_can_be_there_in_time_is_waited_for(one: Volume, opened: list[str], options: str) -> None:
    made = units([one], f"/dev/mapper/data /var ext4 {options}\n", opened, 90)
    assert "JobTimeoutSec=120\n" in made.files["dev-mapper-data.device.d/45-cryptpilot.conf"]


def test_what_is_on_a_network_file_system_below_a_volume_is_a_remote_one() -> None:
    lines = "/dev/mapper/data /data ext4\nhost:/x /data/x nfs\nhost:/y /data/y fuse.sshfs\n"
    made = units([volume("data")], lines, [], 90)
    assert set(made.masks) == {
        "local-fs.target.requires/data.mount",
        "remote-fs.target.requires/data-x.mount",
        "remote-fs.target.requires/data-y.mount",
    }


@pytest.mark.parametrize(
    "line",
    [
        "/dev/mapper/data /data ext4 x-systemd.wanted-by=backup.target",
        "/dev/mapper/other /data ext4 defaults",
        "/dev/mapper/data /data ext4 nofail",
        "/dev/mapper/data /data ext4 noatime,noauto",
        "/dev/mapper/data /data ext4 x-systemd.automount",
        "/dev/mapper/data / ext4 defaults",
        "/dev/mapper/data /usr ext4 defaults",
        "# /dev/mapper/data /data ext4 defaults",
        "/dev/mapper/data",
        "/dev/mapper/data data ext4",
    ],
)
def test_all_other_lines_are_left_alone(line: str) -> None:
    made = units([volume("data", kms=True)], line, [], 90)
    assert (made.masks, made.netdev) == ([], {})
    assert not any(target.startswith(("local-fs", "remote-fs")) for target in made.links)


def required(name: str, *, kms: bool = False) -> Volume:
    return dataclasses.replace(volume(name, kms=kms), required=True)


STOPS = "[Unit]\nOnFailure=emergency.target\nOnFailureJobMode=replace-irreversibly\n"


@pytest.mark.parametrize("kms", [False, True])
def test_the_mount_of_a_required_volume_stays_with_local_fs_target(kms: bool) -> None:
    """Or else services would write into the empty mount point, on a disk that is not encrypted."""
    made = units([required("data", kms=kms)], "/dev/mapper/data /data ext4\n/data/x /srv none bind\n", [], 90)
    assert (made.masks, made.netdev) == ([], {}), "as systemd has it by itself"
    assert not any(name.startswith(("local-fs", "remote-fs")) for name in made.links)
    assert device_files(made) == {"dev-mapper-data.device.d/45-cryptpilot.conf": "[Unit]\nJobTimeoutSec=120\n"}


def test_what_a_required_volume_is_mounted_on_is_required_with_it_and_nothing_else_is() -> None:
    lines = """\
/dev/mapper/outer /data ext4
/dev/mapper/data /data/db ext4
/dev/mapper/more /more ext4
/more/x /data/db/x none bind
"""
    made = units([volume("outer", kms=True), required("data"), volume("more", kms=True)], lines, [], 90)
    assert set(made.netdev) == {"more.mount", "data-db-x.mount"}
    assert not any("/data.mount" in name or "/data-db.mount" in name for name in (*made.masks, *made.links))


def test_nofail_in_a_line_of_a_required_volume_does_not_count() -> None:
    made = units([required("data")], "/dev/mapper/data /data ext4 nofail\n", [], 90)
    assert made.links["local-fs.target.requires/data.mount"] == "../data.mount"
    assert made.files["data.mount.d/40-cryptpilot.conf"] == "[Unit]\nBefore=local-fs.target\n"
    assert made.masks == []


@pytest.mark.parametrize(
    ("line", "target"),
    [("/dev/mapper/data /data ext4 _netdev", "remote-fs.target"), ("/dev/mapper/data none swap sw", "swap.target")],
)
def test_a_required_volume_stops_the_boot_by_whatever_target_it_belongs_to(line: str, target: str) -> None:
    made = units([required("data", kms=True)], line, [], 90)
    assert made.masks == []
    name = next(name for name in made.links if name.startswith(f"cryptpilot-{target}.requires/")).partition("/")[2]
    assert name == ("data.mount" if target == "remote-fs.target" else "dev-mapper-data.swap")
    assert made.links[f"cryptpilot-{target}.requires/{name}"] == f"../{name}"
    assert made.links[f"{target}.wants/cryptpilot-{target}"] == f"../cryptpilot-{target}"
    assert [path for path, text in made.files.items() if "emergency" in text] == [f"cryptpilot-{target}"], (
        "a dead share of the same target stops nothing"
    )
    assert made.files[f"cryptpilot-{target}"] == STOPS


@pytest.mark.parametrize("options", ["noauto", "x-systemd.automount", "x-systemd.wanted-by=backup.target"])
def test_a_line_that_is_not_mounted_at_boot_is_not_required(options: str) -> None:
    made = units([required("data")], f"/dev/mapper/data /data ext4 {options}\n", [], 90)
    assert (made.masks, made.netdev) == ([], {})
    assert not any(name.startswith("local-fs") for name in made.links)


def test_a_required_volume_that_is_needed_before_the_network_is_given_its_time() -> None:
    made = units([required("data", kms=True)], "/dev/mapper/data /var ext4\n", [], 90)
    assert made.files["dev-mapper-data.device.d/45-cryptpilot.conf"] == "[Unit]\nJobTimeoutSec=120\n"


GOOD = "[Mount]\nWhat=/dev/mapper/data\nWhere=/data\nOptions=ro,_netdev\n"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"data.mount": GOOD}, ""),
        ({}, "it made no data.mount"),
        ({"data.mount": GOOD, "home.mount": GOOD}, "it made home.mount, which is another line's"),
        ({"data.mount": GOOD.replace(",_netdev", "")}, "its data.mount does not wait for the network"),
        (
            {"data.mount": "[Mount]\nWhat=/dev/mapper/data\nWhere=/data\n"},
            "its data.mount does not wait for the network",
        ),
    ],
)
def test_what_a_generator_made_that_read_something_else_is_found_out(found: dict[str, str], said: str) -> None:
    made = units([volume("data", kms=True)], "/dev/mapper/data /data ext4 ro", [], 90)
    assert misread(made.netdev, found) == said


def test_the_unit_of_a_mount_for_want_of_one() -> None:
    made = units([volume("data", kms=True)], "/dev/mapper/data /100%\\040data ext4 ro", [], 90)
    (text,) = map(mount, made.netdev.values())
    assert text == (
        "[Unit]\nSourcePath=/etc/fstab\nBefore=remote-fs.target\n\n"
        "[Mount]\nWhat=/dev/mapper/data\nWhere=/100%% data\nType=ext4\nOptions=ro,_netdev\n"
    )
