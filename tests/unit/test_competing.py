"""What else would open the volumes' devices, and how systemd is made to pass it over."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from cryptpilot_boot.commands import check, generator, initrd, show
from cryptpilot_boot.config import Boot, Config, Exec, Volume
from cryptpilot_boot.system import init
from cryptpilot_boot.units.competing import Line, Texts, crypttab, device_path, find
from cryptpilot_boot.units.passing_over import replacements, short_waits, unless_ours
from cryptpilot_boot.units.units import units

UUID = "6d2ab1ba-5dce-4d96-a9b9-f37a5b9d97a4"
OTHER = "00000000-5dce-4d96-a9b9-f37a5b9d97a4"
DATA = Volume("my-data", "/dev/disk/by-id/virtio-data", Exec("cat"), Path("/v/data.toml"), auto_open=True)
LINKS = {
    "/dev/disk/by-id/virtio-data": "/dev/vdb",
    f"/dev/disk/by-uuid/{UUID}": "/dev/vdb",
    f"/dev/disk/by-uuid/{OTHER}": "/dev/vdc",
    "/dev/disk/by-label/stuff": "/dev/vdb",
    "/dev/disk/by-partuuid/1234-01": "/dev/vdb",
    "/dev/disk/by-partlabel/data": "/dev/vdb",
    "/dev/mapper/my-data": "/dev/dm-3",
    "/dev/mapper/vg-lv": "/dev/vdb",
}
"""Links as udev makes them, and where they lead."""


def resolve(path: str) -> str:
    return LINKS.get(path, path)


def places(texts: Texts, one: Volume = DATA, links: bool = True) -> list[str]:
    return [found.place for found in find([one], texts, resolve if links else lambda path: path)]


@pytest.mark.parametrize(
    "line",
    [
        f"my-data UUID={UUID} none luks",
        f"luks-{UUID} UUID={UUID} none luks,discard",
        f"x UUID={UUID.upper()} none x-initrd.attach",
        f'x UUID="{UUID}" - noauto',
        f"\tx\tUUID={UUID}\t\tnone  luks,_netdev",
        f"x UUID={UUID}",
        f"x /dev/disk/by-uuid/{UUID} none",
        'x LABEL="stuff" none',
        "x PARTUUID=1234-01 none",
        "x PARTLABEL=data none",
        "x ID=virtio-data none",
        "x /dev/disk/by-id/virtio-data none",
        "x /dev/vdb /dev/urandom swap",
        "x /dev/mapper/vg-lv none",
        "my-data /dev/vdz none luks",
        f"my-data UUID={OTHER} none luks",
        "my-data not-there none",
        "\rx /dev/vdb none",
        "x /dev/vdb none\0# more",
    ],
)
def test_a_line_of_crypttab_for_a_volume_is_found_by_whatever_name(line: str) -> None:
    assert places(Texts(crypttab=f"# left over\n{line}\nother UUID={OTHER} none\n")) == ["/etc/crypttab:2"]


@pytest.mark.parametrize(
    "line",
    [
        f"# x UUID={UUID} none",
        f"  #x UUID={UUID} none",
        f"luks-{UUID}",
        "",
        f"x UUID={OTHER} none",
        "x /dev/vdc none",
        "x LABEL=data none",
        "x UUID= none",
        "x = none",
        "x " + "y" * 2_000_000,
        "x /dev/\udcff\udcfe none",
        "\0\0\0",
    ],
)
def test_all_other_lines_are_left_alone(line: str) -> None:
    assert places(Texts(crypttab=f"{line}\n")) == []


def test_lines_are_taken_apart_as_systemd_takes_them() -> None:
    text = "a b\tc d e\r\nf\vg\0h i\n#j k\nl\\040m n\n\n \t\n\u00a0o p"
    assert crypttab(text) == [
        Line(1, "a", "b"),
        Line(2, "f", "g"),
        Line(2, "h", "i"),
        Line(4, "l\\040m", "n"),
        Line(7, "\u00a0o", "p"),
    ]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("LABEL=my disk/x", "/dev/disk/by-label/my\\x20disk\\x2fx"),
        ("LABEL=Grün", "/dev/disk/by-label/Grün"),
        ("PARTLABEL='EFI System'", "/dev/disk/by-partlabel/EFI\\x20System"),
        ("UUID=ABCD", "/dev/disk/by-uuid/abcd"),
        ("LABEL=ABCD", "/dev/disk/by-label/ABCD"),
        ("/dev/x=UUID=", "/dev/x=UUID="),
        ("uuid=abcd", "uuid=abcd"),
    ],
)
def test_a_tag_is_the_link_that_udev_makes(source: str, path: str) -> None:
    assert device_path(source) == path


@pytest.mark.parametrize(
    "word",
    [
        f"rd.luks.uuid=luks-{UUID}",
        f"rd.luks.uuid={UUID}",
        f"luks.uuid={UUID}",
        f"rd.luks.name={UUID}=cryptroot",
        f"luks.name={UUID}=my-data",
        f"luks.name={OTHER}=my-data",
        f'rd.luks.uuid="luks-{UUID}"',
        f"rd.luks.uuid=keysource:{UUID}",
        "rd.luks.partuuid=1234-01",
    ],
)
def test_a_word_of_the_kernel_command_line_is_found(word: str) -> None:
    (found,) = find([DATA], Texts(command_line=f"quiet {word} luks.uuid={OTHER} root=/dev/mapper/x"), resolve)
    plain = word.replace('"', "")
    assert found.place == f"kernel command line: {plain}"
    assert found.volume == "my-data"


@pytest.mark.parametrize(
    "words",
    [
        f"luks.uuid={UUID} luks=no",
        f"rd.luks=0 rd.luks.uuid={UUID}",
        f"luks.uuid={OTHER}",
        "luks.uuid=",
        "luks.name=",
        f"luks.name={UUID}",
        f"luks.options={UUID}=discard",
        f"xluks.uuid={UUID}",
    ],
)
def test_other_words_are_left_alone(words: str) -> None:
    assert places(Texts(command_line=words)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/dev/mapper/old /data ext4", "names /dev/mapper/old, which is volume my-data by a name that it does not get"),
        (f"UUID={UUID} /data ext4", "names the encrypted device of volume my-data, not its content"),
        ("/dev/vdb /data ext4", "names the encrypted device of volume my-data"),
        ("/dev/dm-3 /data ext4", "names volume my-data by a number"),
    ],
)
def test_a_line_of_fstab_by_another_name_is_found(line: str, said: str) -> None:
    texts = Texts(crypttab="old /dev/vdb none", fstab=f"/dev/mapper/my-data /x ext4\n{line}\n")
    found = find([DATA], texts, resolve)[-1]
    assert (found.place, found.volume) == ("/etc/fstab:2", "my-data")
    assert found.line == (0 if "dm-3" in line else 2), "the number of a device may be right"
    assert said in found.what
    assert found.todo == "write /dev/mapper/my-data there"


def test_the_file_system_in_a_volume_may_be_named_by_its_own_uuid() -> None:
    assert places(Texts(fstab=f"UUID={OTHER} /data ext4\n/dev/mapper/my-data /x ext4\ntmpfs /y tmpfs\n")) == []


def test_before_udev_a_device_is_known_by_the_path_in_its_file_and_a_volume_by_its_name() -> None:
    text = f"my-data UUID={UUID}\nx /dev/disk/by-id/virtio-data\ny UUID={UUID}\n"
    assert places(Texts(crypttab=text), links=False) == ["/etc/crypttab:1", "/etc/crypttab:2"]


def test_what_is_not_opened_at_boot_has_no_competitor() -> None:
    one = dataclasses.replace(DATA, auto_open=False)
    assert places(Texts(crypttab=f"my-data UUID={UUID} none\n"), one) == []


def test_the_sentence_says_where_what_and_what_to_do() -> None:
    (found,) = find([DATA], Texts(crypttab=f"luks-x UUID={UUID} none luks"), resolve)
    assert found.sentence == (
        "/etc/crypttab:1: has systemd-cryptsetup open the device of volume my-data, which cryptpilot opens;"
        " ignored at boot: remove the line, and write /dev/mapper/my-data where /dev/mapper/luks-x is used"
    )


def test_foreign_text_in_a_message_is_printable_and_short() -> None:
    (found,) = find([DATA], Texts(crypttab=f"\x1b[31m\udcff{'x' * 300} /dev/vdb"), resolve)
    assert found.sentence.isprintable()
    assert len(found.sentence) < 400


def test_a_unit_that_does_nothing_takes_the_place_of_each() -> None:
    found = find([DATA], Texts(crypttab="a-b%c /dev/vdb\nmy-data /dev/vdz\n\udcff /dev/vdb\n"), resolve)
    made = replacements(found)
    assert list(made) == [
        "systemd-cryptsetup@a\\x2db\\x25c.service",
        "systemd-cryptsetup@my\\x2ddata.service",
        "systemd-cryptsetup@\\xff.service",
    ]
    for text in made.values():
        assert "\nExecStart=/bin/true\n" in text
        assert "Description=Nothing: volume my-data is opened by cryptpilot\n" in text
    assert "dev-mapper-my\\x2ddata.device.d/45-cryptpilot.conf" not in short_waits(found, {"my-data"})


def test_a_name_that_no_unit_can_have_is_passed_by() -> None:
    found = find([DATA], Texts(crypttab=f"{'-' * 80} /dev/vdb\n"), resolve)
    assert len(found) == 1
    assert (replacements(found), short_waits(found, {"my-data"})) == ({}, {})


def test_a_mount_by_another_name_fails_alone_and_soon() -> None:
    lines = "/dev/mapper/old /data ext4\n/dev/vdb /more ext4\n/dev/vdc /other ext4\n"
    found = find([DATA], Texts(crypttab="old /dev/vdb none", fstab=lines), resolve)
    made = units([DATA], lines, [], 90, (), found)
    assert made.masks == ["local-fs.target.requires/data.mount", "local-fs.target.requires/more.mount"]
    assert "local-fs.target.wants/data.mount" in made.links
    assert made.files["dev-mapper-old.device.d/45-cryptpilot.conf"] == "[Unit]\nJobTimeoutSec=5\n"
    assert "systemd-cryptsetup@old.service" in made.instead


def test_but_not_that_of_a_required_volume() -> None:
    lines = "/dev/mapper/old /data ext4\n"
    one = dataclasses.replace(DATA, required=True)
    found = find([one], Texts(crypttab="old /dev/vdb none", fstab=lines), resolve)
    assert units([one], lines, [], 90, (), found).masks == []


def test_the_devices_are_written_as_systemd_reads_words() -> None:
    text = unless_ours(["/dev/disk/by-id/a-b", "/dev/x y%z$\\\"'\n"])
    assert text.startswith("[Service]\nExecCondition=/bin/sh -c '[ ! -x /usr/libexec/cryptpilot-unless-ours ] || exec ")
    assert text.endswith("sh %n /dev/disk/by-id/a-b /dev/x\\x20y%%z$$\\x5c\\x22\\x27\\x0a\n")


SCRIPT = Path(__file__).resolve().parents[2] / "systemd/cryptpilot-unless-ours"
STARTED = "ExecStart={{ path=/x ; argv[]=/lib/systemd/systemd-cryptsetup attach {} none luks ; ignore_errors=no ; }}"


@pytest.mark.parametrize("words", ["quiet root=/dev/x", "quiet cryptpilot=no"])
@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (STARTED.format("data /dev/lab"), 1),
        (STARTED.format("data /dev/null-link"), 1),
        (STARTED.format("data /dev/other"), 0),
        (STARTED.format("data /dev/gone"), 0),
        (STARTED.format("* /dev/lab"), 1),
        (STARTED.format(""), 0),
        ("ExecStart={ path=/bin/true ; argv[]=/bin/true ; ignore_errors=no ; }", 0),
        ("ExecStart=", 0),
        ("", 0),
        ("FAILS", 0),
    ],
)
def test_a_unit_is_passed_over_if_its_device_is_a_volumes_and_in_no_other_case(
    tmp_path: Path, shown: str, status: int, words: str
) -> None:
    if "cryptpilot=no" in words:
        status = 0
    for name in ("null-link", "volume", "other"):
        (tmp_path / name).symlink_to("/dev/loop-other" if name == "other" else tmp_path / "lab")
    (tmp_path / "lab").write_text("")
    (tmp_path / "systemctl").write_text(
        f"#!/bin/sh\n[ '{shown}' != FAILS ] || exit 1\ncat << 'END'\n{shown.replace('/dev/', f'{tmp_path}/')}\nEND\n"
    )
    (tmp_path / "systemctl").chmod(0o755)
    # no test can make a block device everywhere
    text = SCRIPT.read_text().replace("[ -b ", "[ -e ").replace("/proc/cmdline", f"{tmp_path}/cmdline")
    (tmp_path / "script").write_text(text)
    (tmp_path / "cmdline").write_text(f"{words}\n")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    arguments = (tmp_path / "script", "systemd-cryptsetup@data.service", tmp_path / "absent", tmp_path / "volume")
    command = ["sh", *map(str, arguments)]
    ended = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    assert ("cryptpilot opens it" in ended.stdout) == (status == 1)


HOOK = Path(__file__).resolve().parents[2] / "initrd_hooks/cryptpilot-claim.sh"
RULES = """\
SUBSYSTEM!="block", GOTO="luks_end"
ENV{ID_FS_TYPE}=="crypto_LUKS", RUN+="initqueue cryptroot-ask"
LABEL="luks_end"
"""
WAITS = f"[ -e /dev/disk/by-id/dm-uuid-CRYPT-LUKS?-*{UUID.replace('-', '')}*-* ] || exit 1\n"
WAITS_FOR_OTHERS = WAITS.replace("6d2ab1ba", "11111111")


@pytest.mark.parametrize("uuids", [f"{UUID.replace('-', '')}\n", None])
def test_the_initrd_keeps_dracut_off_the_disks_of_volumes(tmp_path: Path, uuids: str | None) -> None:
    for name in ("claim", "rules.d", "initqueue/finished"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "claim/devices").write_text("disk/by-id/virtio-data\nvdb\n")
    if uuids:
        (tmp_path / "claim/uuids").write_text(uuids)
    rules, finished = tmp_path / "rules.d/70-luks.rules", tmp_path / "initqueue/finished/90-crypt.sh"
    rules.write_text(RULES)
    finished.write_text(WAITS_FOR_OTHERS + WAITS)
    text = HOOK.read_text().replace("/usr/libexec/cryptpilot/", f"{tmp_path}/").replace("/etc/udev", str(tmp_path))
    sourced = f"hookdir={tmp_path}\ngetargbool() {{ {{answer}}; }}\nhook() {{\n{text}\n}}\nhook"
    for answer in ("false", "true"):
        assert rules.read_text() == RULES, "cryptpilot=no"
        subprocess.run(["sh", "-c", sourced.replace("{answer}", answer)], check=True, capture_output=True)
    assert (
        rules.read_text()
        == "".join(
            f'{key}=="{name}", PROGRAM!="/usr/libexec/cryptpilot-unless-ours --foreign $devnode", GOTO="luks_end"\n'
            for name in ("disk/by-id/virtio-data", "vdb")
            for key in ("KERNEL", "SYMLINK")
        )
        + RULES
    )
    assert finished.read_text() == (WAITS_FOR_OTHERS if uuids else WAITS_FOR_OTHERS + WAITS)


@pytest.mark.parametrize(("status", "left"), [(0, "others"), (1, ""), (2, WAITS)])
def test_what_dracut_waits_for_stays_where_it_cannot_be_sorted_out(tmp_path: Path, status: int, left: str) -> None:
    """grep ends with 2 where there is no room for what it says."""
    for name in ("claim", "initqueue/finished"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "claim/uuids").write_text(UUID)
    finished = tmp_path / "initqueue/finished/90-crypt.sh"
    finished.write_text(WAITS)
    said = "printf others" if status == 0 else ":"
    text = HOOK.read_text().replace("/usr/libexec/cryptpilot/", f"{tmp_path}/").replace("/etc/udev", str(tmp_path))
    script = f"hookdir={tmp_path}\ngetargbool() {{ :; }}\ngrep() {{ {said}; return {status}; }}\n{text}"
    subprocess.run(["sh", "-euc", script], check=True, capture_output=True)
    assert finished.read_text() == left


def test_the_hook_does_nothing_where_dracut_opens_no_luks_disk(tmp_path: Path) -> None:
    text = HOOK.read_text().replace("/usr/libexec/cryptpilot/", f"{tmp_path}/").replace("/etc/udev", str(tmp_path))
    command = ["sh", "-euc", f"hookdir={tmp_path}\ngetargbool() {{ :; }}\n{text}"]
    said = subprocess.run(command, check=True, capture_output=True)
    assert (said.stdout, said.stderr, list(tmp_path.iterdir())) == (b"", b"", [])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration, on a machine where a line of crypttab is left over, and one of fstab contradicts the file."""
    monkeypatch.setattr(init, "crypttab", lambda: "old /dev/disk/by-id/virtio-data none luks\n")
    monkeypatch.setattr(init, "fstab", lambda: "/dev/mapper/my-data /data ext4 nofail\n")
    monkeypatch.setattr(init, "kernel_command_line", lambda: "quiet")
    (tmp_path / "volumes").mkdir()
    other = dataclasses.replace(DATA, volume="other", dev="/dev/other", auto_open=False)
    return Config(tmp_path, Boot(), (dataclasses.replace(DATA, required=True), other))


def test_it_is_shown_below_the_table_and_in_json(machine: Config) -> None:
    *_, blank, note = show.show(machine, [], as_json=False)
    assert blank == ""
    assert note.startswith("warning: /etc/crypttab:1: has systemd-cryptsetup open the device of volume my-data")
    assert show.show(machine, ["other"], as_json=False)[-1].startswith("other")
    data, other = json.loads("\n".join(show.show(machine, [], as_json=True)))
    assert [one["place"] for one in data["competing"]] == ["/etc/crypttab:1"]
    assert all(data["competing"][0][key] for key in ("what", "to_do"))
    assert (other["competing"], data["required"], other["required"]) == ([], True, False)


def test_the_check_warns_of_it_and_of_what_contradicts_required(machine: Config) -> None:
    said: list[str] = []
    assert check.check(machine, keep_checking=True, skip_passphrase=True, say=said.append)
    warnings = [line.removeprefix("my-data: warning: ") for line in said if line.startswith("my-data: warning: /etc/")]
    assert [warning[:45] for warning in warnings] == [
        "/etc/fstab:1: nofail has no effect, because /",
        "/etc/crypttab:1: has systemd-cryptsetup open ",
    ]


def test_the_generator_puts_what_does_nothing_where_it_goes_first(machine: Config, tmp_path: Path) -> None:
    generator.generate(machine, tmp_path / "normal", tmp_path / "early")
    assert {path.name for path in (tmp_path / "early").iterdir()} == {"systemd-cryptsetup@old.service"}
    drop_in = (tmp_path / "normal/systemd-cryptsetup@.service.d/45-cryptpilot.conf").read_text()
    assert drop_in.endswith(" sh %n /dev/disk/by-id/virtio-data\n")
    assert (tmp_path / "normal/local-fs.target.requires/data.mount").is_symlink()


def test_damaged_files_do_not_keep_the_generator_from_its_work(
    machine: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        init, "crypttab", lambda: "a /dev/\udcff\nb " + 5000 * "/dev/x\n\0 old /dev/disk/by-id/virtio-data\r\n"
    )
    monkeypatch.setattr(init, "fstab", lambda: "/dev/\0 /\0 ext4\n/dev/mapper/my-data /\udcff ext4\n/dev/x\n")
    generator.generate(machine, tmp_path / "normal", tmp_path / "early")
    assert {path.name for path in (tmp_path / "early").iterdir()} == {"systemd-cryptsetup@old.service"}


def test_an_image_claims_what_is_opened_at_boot_and_nothing_else(machine: Config) -> None:
    lines = [line for line in initrd.plan(machine) if line.startswith(("claim ", "condition "))]
    assert lines[0] == "claim /dev/disk/by-id/virtio-data"
    assert [line for line in lines[1:] if not line.startswith("condition ExecCondition=/bin/sh -c ")] == []
    assert len(lines) == 2
