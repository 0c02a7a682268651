"""Images without an image: where they are, what they were made from, what is said of them."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.commands import image_check, image_status
from cryptpilot_boot.commands.image_status import ImageStatus
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.images import agent, findings, kernel_modules, record, remedy, startup
from cryptpilot_boot.images.record import Record
from cryptpilot_boot.system import dracut, unit_files
from tests.unit.test_config import GUIDE_KMS, GUIDE_OTP, configure

ROOT = "/etc/cryptpilot/volumes/root.toml"
DATA = "/etc/cryptpilot/volumes/data.toml"
RECORD = Record("1.0", "aa", {ROOT: "11", DATA: "22"}, {"root": "kms", "data": "otp"}, ("cryptsetup",), ("xts",), True)


@pytest.mark.parametrize(
    ("now", "on_disk", "said"),
    [
        ({ROOT: "11", DATA: "22"}, {ROOT: "11", DATA: "22"}, ()),
        ({ROOT: "33", DATA: "22"}, {ROOT: "33", DATA: "22"}, (f"{ROOT} has changed",)),
        ({ROOT: "11"}, {ROOT: "11"}, (f"{DATA} is gone",)),
        ({ROOT: "11"}, {ROOT: "11", DATA: "22"}, (f"{DATA} is no longer for the initrd",)),
        # a file that cannot be used just now is none of `now`, and has been changed all the same
        ({ROOT: "11"}, {ROOT: "11", DATA: "44"}, (f"{DATA} has changed",)),
        ({ROOT: "11", DATA: "22", "/new": "55"}, {ROOT: "11", DATA: "22"}, ("/new is new",)),
    ],
    ids=["nothing", "changed", "gone", "of no more use", "unusable", "new"],
)
def test_what_has_changed_since_an_image_was_made(
    now: dict[str, str], on_disk: dict[str, str], said: tuple[str, ...]
) -> None:
    found = record.differences(RECORD, dataclasses.replace(RECORD, configuration=now), on_disk)
    assert (found.configuration, found.agent) == (said, ())


GET_KEY = "/usr/bin/get-key"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({GET_KEY: "11"}, {GET_KEY: "11"}, ()),
        ({GET_KEY: "11"}, {GET_KEY: "22"}, (f"{GET_KEY} has changed",)),
        ({GET_KEY: "11"}, {}, (f"{GET_KEY} is gone",)),
        ({}, {GET_KEY: "11"}, (f"{GET_KEY} is new",)),
        # written down by a version that did not look at programs
        (None, {GET_KEY: "11"}, ()),
    ],
    ids=["nothing", "changed", "gone", "new", "unknown"],
)
def test_a_program_that_gives_the_key_has_changed(
    then: dict[str, str] | None, now: dict[str, str], said: tuple[str, ...]
) -> None:
    before = dataclasses.replace(RECORD, commands=then)
    found = record.differences(before, dataclasses.replace(RECORD, commands=now), {**RECORD.configuration, **now})
    assert found.configuration == said


def test_a_record_names_the_program_that_gives_the_key(tmp_path: Path) -> None:
    program = tmp_path / "get-key"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    otp = GUIDE_OTP.partition("[encrypt")[0]
    config = configure(tmp_path, otp + f'[encrypt.exec]\ncommand = "{program}"\n')
    made = record.make(config)
    assert made.commands == {str(program): hashlib.sha256(b"#!/bin/sh\n").hexdigest()}
    assert record.since(made, made).all == ()
    # a change of nothing else makes `show` look into images; the clock of a file system may be coarse
    before = record.changed(config)
    for _ in range(500):
        program.write_text("#!/bin/sh\n:\n")
        if program.stat().st_ctime > before:
            break
        time.sleep(0.01)
    assert record.changed(config) == program.stat().st_ctime
    assert record.since(made, record.make(config)).configuration == (f"{program} has changed",)


def test_a_record_names_the_service_that_attests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unit, drop-ins, programs and settings: the image has copies of all of them."""
    names = ("agent", "check", "lib/attestation-agent.service", "etc/attestation-agent.service.d/local.conf")
    agent, checking, unit, drop_in = places = [tmp_path / name for name in names]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    for program in (agent, checking):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    unit.write_text(
        "[Service]\nExecStart=\n"
        f"ExecStartPre=-{checking} \\\n# not a part of it\n --quiet\n"
        f"ExecStart={agent} --config=/etc/passwd --other /etc/no-such-file\n"
        "EnvironmentFile=-/etc/group\nExecStop=/bin/true\n"
    )
    drop_in.write_text("[Service]\nNice=5\n")
    monkeypatch.setattr(unit_files, "DIRECTORIES", (tmp_path / "etc", tmp_path / "lib"))
    kbs = 'kbs_url = "https://kbs.example"\nkey_uri = "kbs:///default/disk/key"\n'
    config = configure(tmp_path, f"{GUIDE_OTP.partition('[encrypt')[0]}[encrypt.kbs]\n{kbs}")
    made = record.make(config)
    assert set(made.commands or ()) == {*map(str, places), "/etc/passwd", "/etc/group"}
    for place, text in ((agent, "#!/bin/sh\n:\n"), (drop_in, "[Service]\nNice=6\n")):
        place.write_text(text)
        assert record.since(made, record.make(config)).configuration == (f"{place} has changed",)
        made = record.make(config)
    drop_in.unlink()
    assert record.since(made, record.make(config)).configuration == (f"{drop_in} is gone",)
    unit.unlink()
    assert unit_files.of(unit.name) == ()


def test_a_record_of_an_older_version_is_read() -> None:
    table = json.loads(RECORD.as_json)
    del table["commands"]
    assert record.parse(json.dumps(table)) == RECORD


def test_another_agent_is_told_by_its_version_or_as_another_build() -> None:
    on_disk = RECORD.configuration
    newer = dataclasses.replace(RECORD, version="2.0", agent="bb")
    assert record.differences(RECORD, newer, on_disk).all == ("cryptpilot 1.0 is in it, and 2.0 is installed",)
    rebuilt = dataclasses.replace(RECORD, agent="bb")
    assert record.differences(RECORD, rebuilt, on_disk).all == ("another build of cryptpilot 1.0 is installed",)


def test_an_image_without_a_record_is_stale() -> None:
    assert record.since(None, RECORD).agent


def test_a_record_is_read_as_it_was_written() -> None:
    assert record.parse(RECORD.as_json) == RECORD
    full = dataclasses.replace(RECORD, commands={"/usr/bin/get-key": "33"})
    assert record.parse(full.as_json) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '"x"',
        '{"programs": 3}',
        RECORD.as_json.replace('"commands": null', '"commands": 3'),
        RECORD.as_json.replace("volumes", "x"),
    ],
)
def test_a_damaged_record_is_told_of(text: str) -> None:
    with pytest.raises(CryptpilotError, match="damaged, or another version's"):
        record.parse(text)


def test_a_record_names_the_volumes_of_the_initrd_and_digests_of_their_files(tmp_path: Path) -> None:
    late = GUIDE_KMS.replace("data0", "late").replace("/dev/", "/dev/other").replace("auto_open = true", "")
    config = configure(tmp_path, GUIDE_OTP, late, settings="[boot]\n")
    assert [one.auto_open for one in config.volumes] == [True, False]
    (tmp_path / "manifest.json").write_text("{}")
    made = record.make(config, tmp_path)
    assert made.volumes == {"data0": "otp"}
    files = [tmp_path / "global.toml", tmp_path / "volumes/v0.toml"]
    assert made.configuration == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert made.agent == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["boot/initrd.img-6.1"], ["boot/initrd.img-6.1"]),
        (["boot/initramfs-6.1.img", "boot/initramfs-6.1kdump.img"], ["boot/initramfs-6.1.img"]),
        (["boot/4dd/6.1/initrd", "boot/other/6.1/initrd"], ["boot/4dd/6.1/initrd"]),
        (["efi/Default/6.1/initrd"], ["efi/Default/6.1/initrd"]),
        (["boot/efi/4dd/6.1/initrd", "boot/initrd.img-6.1"], ["boot/efi/4dd/6.1/initrd", "boot/initrd.img-6.1"]),
        (["boot/initrd.img-6.10", "boot/initrd.img-6.1.old"], []),
        # what kernel-install copies for systemd-boot where the image was there before, as Debian has it
        (["boot/initrd.img-6.1", "efi/4dd/6.1/initrd.img-6.1"], ["efi/4dd/6.1/initrd.img-6.1", "boot/initrd.img-6.1"]),
        (["boot/efi/chosen/6.1/initrd", "boot/lab/6.1/initrd"], ["boot/lab/6.1/initrd", "boot/efi/chosen/6.1/initrd"]),
    ],
)
def test_images_are_found_where_distributions_put_them(tmp_path: Path, files: list[str], found: list[str]) -> None:
    tree(
        tmp_path,
        **{"etc/machine-id": "4dd\n", "etc/kernel/entry-token": "chosen\n", "etc/os-release": 'NAME="Lab"\nID="lab"\n'},
        **dict.fromkeys(files, ""),
    )
    assert [str(path.relative_to(tmp_path)) for path in dracut.images("6.1", tmp_path)] == found


@pytest.mark.parametrize("token", ["", "x/y", "..", "."])
def test_a_token_that_is_no_name_leads_nowhere(tmp_path: Path, token: str) -> None:
    tree(tmp_path, **{"etc/kernel/entry-token": token, "boot/x/y/6.1/initrd": "", "boot/6.1/initrd": ""})
    assert dracut.images("6.1", tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("4dd-6.1.0-56-amd64.efi", "6.1.0-56-amd64"),
        ("4dd-6.1.0-56-amd64+3-1.efi", "6.1.0-56-amd64"),
        (f"linux-6.1-{'0af3' * 8}.efi", "6.1"),
        (f"linux-6.1-{'0af3' * 8}-build.efi", "6.1"),
        ("4dd-6.1.0-56-amd64-rescue.efi", ""),
        ("4dd-6.1.efi.old", ""),
    ],
)
def test_unified_kernel_images_are_known_by_the_kernel_in_their_names(tmp_path: Path, name: str, kernel: str) -> None:
    tree(tmp_path, **{f"efi/EFI/Linux/{name}": ""})
    found = [one for one in ("6.1", "6.1.0", "6.1.0-5", "6.1.0-56-amd64") if dracut.unified_images(one, tmp_path)]
    assert found == ([kernel] if kernel else [])


def test_one_image_by_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/initramfs-6.1.img").write_text("")
    (tmp_path / "boot/initrd.img-6.1").symlink_to("initramfs-6.1.img")
    assert len(dracut.images("6.1", tmp_path)) == 1


def test_kernels_are_listed_oldest_first_if_they_are_there(tmp_path: Path) -> None:
    for name in ("6.1.0-9-cloud", "6.1.0-10-cloud", "5.10.0", "leftover"):
        (tmp_path / name).mkdir()
        if name != "leftover":
            (tmp_path / name / "modules.dep").write_text("")
    assert dracut.kernels(tmp_path) == ["5.10.0", "6.1.0-9-cloud", "6.1.0-10-cloud"]


def cpio(*names: str) -> bytes:
    """Return a cpio archive of files that hold their own names."""

    def entry(name: str, data: bytes) -> bytes:
        fields = [0] * 13
        fields[6], fields[11] = len(data), len(name) + 1
        head = b"070701" + "".join(f"{field:08X}" for field in fields).encode() + name.encode() + b"\0"
        head += b"\0" * (-len(head) % 4)
        return head + data + b"\0" * (-len(data) % 4)

    return b"".join(entry(name, name.encode()) for name in names) + entry("TRAILER!!!", b"")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(b"x"), "gzip"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (cpio("init"), "nothing"),
        (cpio("early_cpio", "kernel/x86/microcode/GenuineIntel.bin") + b"\0" * 700 + gzip.compress(b"x"), "gzip"),
        (cpio("early_cpio") + b"\0" * 512 + cpio("init"), "nothing"),
        (b"070701 and no more", "nothing"),
        (b"", "nothing"),
    ],
    ids=["gzip", "zstd", "plain", "microcode first", "microcode and plain", "damaged", "empty"],
)
def test_what_compressed_an_image_is_seen_behind_the_microcode(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "image").write_bytes(content)
    assert dracut.compressor(tmp_path / "image") == name


def test_kernel_modules_are_known_by_name_however_their_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n"
    )
    (tmp_path / "image/lib/modules/6.1").mkdir(parents=True)
    monkeypatch.setattr(dracut, "modules_directory", lambda _: tmp_path)
    for module, names in (("dm_crypt", ["dm_crypt", "dm_mod"]), ("dm_mod", ["dm_mod"])):
        found = kernel_modules.drivers_missing(tmp_path / "image", {module: "the disk of root"})
        assert [one.what.split()[3] for one in found] == names


def tree(directory: Path, **files: str) -> Path:
    """Make an unpacked image of empty files, and of some with content."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


UNIT = "usr/lib/systemd/system/cryptpilot-initrd.service"
HOOK = "lib/dracut/hooks/pre-trigger/10-cryptpilot-start.sh"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([], "neither systemd nor a hook of cryptpilot"),
        ([f"usr/{HOOK}"], ""),
        ([HOOK], ""),
        ([f"var/{HOOK}"], ""),
        (["usr/lib/dracut/hooks/pre-trigger/10-other.sh"], "neither systemd nor a hook of cryptpilot"),
        (["usr/lib/systemd/systemd", HOOK], "cryptpilot-initrd.service is missing"),
        (["usr/lib/systemd/systemd", UNIT], "cryptpilot-initrd.service is not enabled"),
    ],
)
def test_what_starts_the_agent_is_a_unit_or_a_hook(tmp_path: Path, files: list[str], complaint: str) -> None:
    found = list(startup.not_started(tree(tmp_path, **dict.fromkeys(files, ""))))
    assert len(found) == bool(complaint)
    assert all(complaint in one.what for one in found)


ASKS = [
    "bin/systemd-ask-password",
    "usr/bin/systemd-tty-ask-password-agent",
    "lib/systemd/system/systemd-ask-password-console.path",
    "usr/lib/systemd/system/systemd-ask-password-console.service",
]
WANTS = "etc/systemd/system/sysinit.target.wants/systemd-ask-password-console.path"


@pytest.mark.parametrize(
    ("left_out", "complaint"),
    [
        ("", ""),
        (WANTS, "systemd-ask-password-console.path is not enabled"),
        *((path, f"{path.rpartition('/')[2]} is missing") for path in ASKS),
    ],
)
def test_what_asks_a_person_is_there_where_systemd_is(tmp_path: Path, left_out: str, complaint: str) -> None:
    tree(tmp_path, **dict.fromkeys({*ASKS} - {left_out}, ""))
    if left_out != WANTS:
        (tmp_path / WANTS).parent.mkdir(parents=True)
        (tmp_path / WANTS).symlink_to("/usr/lib/systemd/system/systemd-ask-password-console.path")
    assert list(startup.cannot_ask(tmp_path)) == []
    tree(tmp_path, **{"usr/lib/systemd/systemd": ""})
    found = [one.what for one in startup.cannot_ask(tmp_path)]
    assert found == ([f"{complaint}, so no key can be asked for on the console"] if complaint else [])


AGENT_UNIT = "etc/systemd/system/attestation-agent.service"
STARTED = "etc/systemd/system/cryptpilot-initrd.service.d/attestation-agent.service.conf"
PROGRAM = "usr/bin/attestation-agent"


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ((), []),
        ((AGENT_UNIT,), ["the service attestation-agent.service is missing"]),
        ((STARTED,), ["the service attestation-agent.service is not enabled, so nothing starts it"]),
        ((PROGRAM,), ["the program /usr/bin/attestation-agent of attestation-agent.service is missing"]),
    ],
)
def test_a_service_that_a_key_is_asked_with_is_there_and_starts(
    tmp_path: Path, left_out: tuple[str, ...], said: list[str]
) -> None:
    text = "[Service]\nExecStart=\nExecStart = -/usr/bin/attestation-agent -a x\n"
    files = {AGENT_UNIT: text, STARTED: "", PROGRAM: ""}
    unpacked = tree(tmp_path, **{name: text for name, text in files.items() if name not in left_out})
    needs = agent.parse_requirements("unit attestation-agent.service\n")
    found = list(findings.units_missing(unpacked, needs))
    assert [one.what for one in found] == said
    assert all(one.hint.endswith(remedy.REBUILD) for one in found)
    assert list(findings.units_missing(unpacked, agent.parse_requirements(""))) == []


def test_a_service_that_this_machine_lacks_too_is_to_be_installed(tmp_path: Path) -> None:
    assert remedy.unit_missing("attestation-agent.service", tmp_path).startswith("install attestation-agent, then ")
    tree(tmp_path, **{"usr/lib/systemd/system/attestation-agent.service": ""})
    assert remedy.unit_missing("attestation-agent.service", tmp_path) == remedy.REBUILD


def test_a_volume_that_dracut_would_open_too_is_told(tmp_path: Path) -> None:
    unpacked = tree(tmp_path, **{"etc/cmdline.d/90crypt.conf": " rd.luks.uuid=luks-aa-1 rd.luks.uuid=luks-bb-2\n"})
    [found] = findings.claimed(unpacked, {"aa-1": "swap", "bb": "data"})
    assert "dracut also opens the volume swap" in found.what


@pytest.mark.needs("cryptsetup")
def test_volumes_are_known_by_the_uuids_of_their_headers(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("here", "blank", "absent")]
    for path in paths[:2]:
        path.write_bytes(b"")
        os.truncate(path, 20 << 20)
    uuid = "1f6f8ae7-1bd4-4a5c-b7a6-2b8f0ad5d0c1"
    command = ["cryptsetup", "luksFormat", "-q", "--type=luks2", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"]
    subprocess.run([*command, f"--uuid={uuid}", "--key-file=-", paths[0]], input=b"x", check=True)
    config = configure(
        tmp_path, *(GUIDE_OTP.replace("data0", one.name).replace("/dev/", f"/dev/{one.name}") for one in paths)
    )
    volumes = tuple(dataclasses.replace(one, dev=str(tmp_path / one.volume)) for one in config.volumes)
    assert image_check.identities(dataclasses.replace(config, volumes=volumes)) == {uuid: "here"}


MODULES = "usr/lib/modules/6.1"
INSTALLED = """\
kernel/md/dm-crypt.ko.xz: kernel/md/dm-mod.ko.xz
kernel/md/dm-mod.ko.xz:
kernel/crypto/xts.ko.xz:
"""


@pytest.mark.parametrize(
    ("files", "installed", "missing"),
    [
        ({"kernel/dm-crypt.ko": "", "kernel/dm-mod.ko": "", "kernel/xts.ko": ""}, INSTALLED, []),
        ({"kernel/dm-crypt.ko": "", "kernel/dm-mod.ko": ""}, INSTALLED, ["xts"]),
        ({"kernel/dm-crypt.ko": "", "kernel/xts.ko": ""}, INSTALLED, ["dm_mod"]),
        ({"modules.builtin": "kernel/dm-mod.ko\nkernel/dm-crypt.ko\nkernel/xts.ko\n"}, INSTALLED, []),
        # another machine's image: its own list of modules, and what no volume can do without
        ({"modules.dep": INSTALLED, "kernel/dm-crypt.ko": "", "kernel/dm-mod.ko": ""}, "", ["xts"]),
        ({"kernel/xts.ko": ""}, "", ["dm_crypt"]),
    ],
    ids=["whole", "module", "dependency", "built in", "another machine", "essential"],
)
def test_kernel_modules_must_be_there_if_the_kernel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], installed: str, missing: list[str]
) -> None:
    here = tree(tmp_path / "installed", **{"modules.dep": installed})
    monkeypatch.setattr(dracut, "modules_directory", lambda _: here)
    unpacked = tree(tmp_path / "image", **{f"{MODULES}/{name}": text for name, text in files.items()})
    names = [f"the kernel module {name} of 6.1 is missing" for name in missing]
    found = kernel_modules.missing(unpacked, ("dm_crypt", "aes_arm64", "xts"))
    assert [one.what for one in found] == names


STALE = record.Differences((f"{ROOT} has changed",))
ROWS = [
    ImageStatus("6.1", running=True, path=Path("/boot/initrd.img-6.1"), good=True, in_image=True,
           volumes=("root", "data"), size=3 << 20, compressed=1 << 20, compressor="zstd"),
    ImageStatus("6.2", running=False, path=Path("/boot/initrd.img-6.2"), good=False, in_image=True, changes=STALE,
           volumes=("root",), size=3 << 20),
    ImageStatus("6.3", running=False, path=Path("/boot/initrd.img-6.3"), good=False),
    ImageStatus("6.4", running=False, path=None, good=False, problem="no image"),
    ImageStatus("6.5", running=False, path=Path("/boot/initrd.img-6.5"), good=False, problem="it cannot be unpacked"),
]  # fmt: skip
TABLE = """\
Kernel  Image                 In Image  Configuration  Agent    Volumes     Adds   Compressed
------  --------------------  --------  -------------  -------  ----------  -----  ------------
6.1 *   /boot/initrd.img-6.1  yes       current        current  root, data  3 MiB  1 MiB (zstd)
6.2     /boot/initrd.img-6.2  yes       stale          current  root        3 MiB  -
6.3     /boot/initrd.img-6.3  no        -              -        -           -      -
6.4     -                     no        -              -        -           -      -
6.5     /boot/initrd.img-6.5  ?         -              -        -           -      -
* is the kernel that runs.
/boot/initrd.img-6.2: /etc/cryptpilot/volumes/root.toml has changed
/boot/initrd.img-6.2: rebuild it: cryptpilot initrd rebuild --kernel 6.2
/boot/initrd.img-6.3: does not open root, data; rebuild it: cryptpilot initrd rebuild --kernel 6.3
6.4: there is no image; make one: dracut --kver 6.4
/boot/initrd.img-6.5: it cannot be unpacked"""


def test_the_table_says_where_each_image_stands_and_what_to_do() -> None:
    assert "\n".join(image_status.lines(ROWS, RECORD)) == TABLE


def test_the_json_of_an_image_can_be_told_by_programs() -> None:
    rows = json.loads(image_status.as_json_array(ROWS))
    assert [row["good"] for row in rows] == [True, False, False, False, False]
    assert [row["configuration_current"] for row in rows] == [True, False, None, None, None]
    assert rows[1]["changes"] == [f"{ROOT} has changed"]


@pytest.mark.parametrize(
    ("words", "kernel", "every", "options"),
    [
        ([], None, False, []),
        (["--all"], None, True, []),
        (["--kernel", "6.1", "--", "--no-hostonly", "--add", "lvm"], "6.1", False, ["--no-hostonly", "--add", "lvm"]),
        (["--", "--", "x"], None, False, ["--", "x"]),
    ],
)
def test_what_stands_behind_two_hyphens_is_dracuts(
    words: list[str], kernel: str | None, every: bool, options: list[str]
) -> None:
    arguments = parse(["initrd", "rebuild", *words])
    assert (arguments.kernel, arguments.all, arguments.options) == (kernel, every, options)


@pytest.mark.parametrize("words", [["rebuild", "--no-hostonly"], ["rebuild", "6.1"], ["check", "a", "--kernel", "b"]])
def test_an_option_of_dracuts_is_not_taken_for_ours(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["initrd", *words])
    assert end.value.code == 2
    assert "usage: cryptpilot initrd" in capsys.readouterr().err


def test_two_hyphens_mean_to_other_commands_what_they_always_do() -> None:
    assert parse(["open", "--", "-x"]).volumes == ["-x"]


def test_another_configuration_than_the_images_is_none_of_their_business(tmp_path: Path) -> None:
    assert image_check.stale(configure(tmp_path, GUIDE_OTP)) == []


def test_images_are_not_compared_with_a_configuration_they_are_not_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dracut, "require_usable", lambda: None)
    with pytest.raises(CryptpilotError, match="images are made from /etc/cryptpilot"):
        image_check.required(configure(tmp_path, GUIDE_OTP))
