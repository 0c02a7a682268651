"""Images as an administrator has them: current or stale, whole or damaged, and made anew without losing the old one.

In a chroot of an installed tree with the tree's own dracut. Its dracut.conf.d keeps the images small.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from buildlib import sources
from tests import machines
from tests.lab.run import run
from tests.lab.tree import clone, in_chroot, kernel_release

DRACUT = """\
hostonly=no
dracutmodules+=" base cryptpilot "
omit_dracutmodules+=" ifcfg "
compress="gzip -1"
do_strip=no
"""


@pytest.fixture(scope="module")
def made(tree: Path, site: machines.Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with two volumes for the initrd, and an image that opens them; not to be changed."""
    copy = clone(tree, tmp_path_factory.mktemp("images") / "tree")
    machines.configure(copy, {"root": machines.volume_file(site), "scratch": machines.scratch_file(integrity=True)})
    (copy / "etc/dracut.conf.d/99-lab.conf").write_text(DRACUT)
    in_chroot(copy, ["dracut", str(image_of(copy, inside=True)), kernel_release(copy)])
    return copy


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """Such a tree to change the configuration and the images of; what else it has is the other's."""
    copy = tmp_path / "tree"
    run(["cp", "--archive", "--link", made, copy])
    for name in ("etc", "boot"):
        shutil.rmtree(copy / name)
        clone(made / name, copy / name)
    return copy


def image_of(tree: Path, *, inside: bool = False) -> Path:
    """Return the path of a tree's image, as it is seen in the tree or from without."""
    image = tree / "boot" / f"initrd.img-{kernel_release(tree)}"
    return Path("/") / image.relative_to(tree) if inside else image


def sh(tree: Path, script: str) -> tuple[int, str]:
    """Run a shell script in a tree; return its exit status and all that was said."""
    output = in_chroot(tree, ["bash", "-c", f"(\n{script}\n) 2>&1; echo $?"])
    *lines, status = output.splitlines()
    return int(status), "\n".join(lines)


def initrd(tree: Path, *words: str) -> tuple[int, str]:
    return sh(tree, " ".join(["cryptpilot initrd", *words]))


def status(tree: Path) -> tuple[int, list[dict[str, Any]]]:
    ended, said = initrd(tree, "status --json")
    rows: list[dict[str, Any]] = json.loads(said)
    return ended, rows


def litter(tree: Path) -> list[str]:
    """Return what was left in places for what is soon gone, /run but for the lab's own sake."""
    places = [tree / "var/tmp", tree / "tmp", tree / "boot"]
    return [path.name for place in places for path in place.iterdir() if path.name.startswith(TRACES)] + [
        path.name for path in (tree / "boot").iterdir() if path.suffix == ".cryptpilot-new"
    ]


TRACES = ("cryptpilot-", "lsinitrd.", "dracut.")


def test_an_image_says_what_it_was_made_from_and_no_secret(made: Path, site: machines.Site) -> None:
    _, text = sh(made, f"lsinitrd -f usr/libexec/cryptpilot/image.json {image_of(made, inside=True)}")
    record = json.loads(text)
    files = [made / "etc/cryptpilot" / name for name in ("global.toml", "volumes/root.toml", "volumes/scratch.toml")]
    assert record["configuration"] == {
        f"/{path.relative_to(made)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    manifest = (made / "usr/libexec/cryptpilot/manifest.json").read_bytes()
    assert record["agent"] == hashlib.sha256(manifest).hexdigest()
    assert record["volumes"] == {"root": "kms", "scratch": "otp"}
    assert record["network"] is True
    assert {"mkfs.ext4", "cryptsetup"} <= set(record["programs"])
    assert [what for what, value in site.forbidden.items() if value in text.encode()] == []


def test_a_whole_image_is_found_whole_and_current(made: Path) -> None:
    image = image_of(made, inside=True)
    ended, said = initrd(made, f"check {image}; find /run -mindepth 1")
    assert (ended, said) == (
        0,
        f"{image}: ok: cryptpilot 0.1.0 is whole, runs in it, and opens root (kms), scratch (otp)",
    )
    ended, [row] = status(made)
    assert ended == 0
    assert [row[key] for key in ("good", "in_image", "agent_current", "configuration_current")] == [True] * 4
    assert row["volumes"] == ["root", "scratch"]
    assert row["compressor"] == "gzip"
    assert row["bytes"] // 5 < row["compressed_bytes"] < row["bytes"] // 2
    assert litter(made) == []


BUNDLE = "usr/libexec/cryptpilot"
PYTHON = sources.PYTHON.version.rpartition(".")[0]
NOT_STARTED = "so nothing starts the agent"
DAMAGES = {
    "much": (
        f"""printf XXXX | dd of={BUNDLE}/_internal/libssl.so.3 bs=1 seek=300000 conv=notrunc
rm {BUNDLE}/_internal/python*/lib-dynload/_ssl.* usr/sbin/mkfs.ext4 $(find . -name dm-crypt.ko -o -name dm-bufio.ko)
rm $(find . -name libcryptsetup.so.12) usr/lib/systemd/system/cryptpilot-initrd.service etc/cmdline.d/95cryptpilot.conf
chmod 644 etc/cryptpilot/volumes/root.toml
sed -i /network/d usr/lib/dracut/modules.txt
rm usr/bin/cryptpilot-no-shell etc/systemd/system/systemd-fsck@.service.d/cryptpilot-shutdown.conf""",
        [
            "/usr/libexec/cryptpilot/_internal/libssl.so.3 was changed",
            f"/{BUNDLE}/_internal/python{PYTHON}/lib-dynload/_ssl.cpython-{PYTHON.replace('.', '')}-",
            "the program cryptsetup does not start in it: cryptsetup lacks libcryptsetup.so.12",
            "the program mkfs.ext4 is missing",
            "the kernel module dm_bufio of ",  # dm_integrity needs it
            "the kernel module dm_crypt of ",
            "/etc/cryptpilot/volumes/root.toml in the image has mode 0644, not 0600",
            f"cryptpilot-initrd.service is missing, {NOT_STARTED}",
            "cryptpilot-shutdown.conf is missing, so a boot that fails may hang",
            "the key of a volume comes over the network, but the image requests no network",
            "the key of a volume comes over the network, but nothing in the image brings a network up",
            "it gives a root shell on the console when a boot fails",
        ],
    ),
    "Python": (
        f"rm {BUNDLE}/_internal/libpython*",
        [f"/{BUNDLE}/_internal/libpython{PYTHON}.so.1.0 is missing", "the agent does not run in it: "],
    ),
    "the C library's kin": (
        "rm $(find . -name libz.so.1)",
        ["the library libz.so.1, which the agent needs, is missing", "the agent does not run in it: "],
    ),
    "an invalid file": (
        "echo '[' >> etc/cryptpilot/volumes/root.toml",
        [
            "/etc/cryptpilot/volumes/root.toml in it was changed",
            "the agent in it cannot use the configuration in it: ",
        ],
    ),
    "no files": (
        "rm etc/cryptpilot/volumes/* etc/systemd/system/initrd.target.wants/cryptpilot-initrd.service",
        [
            "/etc/cryptpilot/volumes/root.toml is missing",
            "/etc/cryptpilot/volumes/scratch.toml is missing",
            "the agent is in it, but no configuration of a volume that it has to open",
            f"cryptpilot-initrd.service is not enabled, {NOT_STARTED}",
        ],
    ),
    "all of it": (f"rm -r {BUNDLE}", ["cryptpilot is not in it, and would not open root, scratch"]),
    "the record": (f"echo '{{' > {BUNDLE}/image.json", ["/usr/libexec/cryptpilot/image.json in the image is damaged"]),
    "no record": (f"rm {BUNDLE}/image.json", ["it is stale: it was made by a version of cryptpilot that did not"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_that_is_missing_or_damaged_is_said(made: Path, damage: str) -> None:
    script, complaints = DAMAGES[damage]
    ended, said = sh(
        made,
        f"""set -e
mkdir /run/tree; cd /run/tree
lsinitrd --unpack {image_of(made, inside=True)}
{{
{script}
}} > /dev/null 2>&1
find . | cpio --quiet -o -H newc > /run/damaged.img
rm -r /run/tree; cd /
ended=0; cryptpilot initrd check /run/damaged.img || ended=$?
ls /run
exit $ended""",
    )
    *lines, left = said.splitlines()
    assert left == "damaged.img"
    found = [line.partition("error: ")[2].replace("/run/damaged.img: ", "") for line in lines if "error: " in line]
    assert [line[: len(complaint)] for line, complaint in zip(found, complaints)] == complaints
    assert (ended, len(found)) == (1, len(complaints))


def test_an_image_that_ends_too_early_is_refused(made: Path) -> None:
    ended, said = sh(
        made, f"head -c 20M {image_of(made, inside=True)} > /run/short.img; cryptpilot initrd check /run/short.img"
    )
    assert ended == 1
    assert "/run/short.img cannot be unpacked" in said


def test_without_a_volume_for_the_initrd_no_image_needs_the_agent(home: Path) -> None:
    for path in (home / "etc/cryptpilot/volumes").iterdir():
        path.unlink()
    image = image_of(home, inside=True)
    in_chroot(home, ["dracut", "--force", "--modules", "base", str(image), kernel_release(home)])
    assert initrd(home, f"check {image}") == (
        0,
        f"{image}: ok: cryptpilot is not in it, and no volume is configured to be opened in the initrd",
    )
    ended, [row] = status(home)
    assert (ended, row["in_image"]) == (0, False)


def test_a_stale_image_is_told_of_and_made_anew(home: Path) -> None:
    """By `status`, by `check`, and on standard error by `show`, for the kernel that runs."""
    image = image_of(home, inside=True)
    kernel = kernel_release(home)
    with (home / "etc/cryptpilot/volumes/root.toml").open("a") as file:
        file.write("# changed\n")
    (home / "etc/cryptpilot/volumes/scratch.toml").unlink()
    ended, [row] = status(home)
    changes = ["/etc/cryptpilot/volumes/root.toml has changed", "/etc/cryptpilot/volumes/scratch.toml is gone"]
    assert (ended, row["good"], row["changes"]) == (1, False, changes)
    ended, said = initrd(home, f"check {image}")
    assert ended == 1
    assert f"{image}: it is stale: {changes[0]}\ncryptpilot:   rebuild it: cryptpilot initrd rebuild --kernel" in said

    running = "/boot/initrd.img-$(uname -r)"
    ended, said = sh(
        home, f"ln {image} {running}; cryptpilot show --json 2>/run/err >/run/out; cat /run/err; rm {running}"
    )
    assert "warning: /boot/initrd.img-" in said
    assert f"is stale: {changes[0]}; run: cryptpilot initrd rebuild" in said
    _, said = sh(home, "cryptpilot show --json 2>/dev/null")
    assert json.loads(said)[0]["volume"] == "root"

    ended, said = initrd(home, f"rebuild --kernel {kernel}")
    assert ended == 0, said
    for line in (*changes, "no longer in it: volumes scratch", "rebuilt and checked"):
        assert f"{image}: {line}" in said
    assert image_of(home).stat().st_mode & 0o777 == 0o600
    ended, [row] = status(home)
    assert (ended, row["good"], row["volumes"]) == (0, True, ["root"])
    _, said = sh(home, f"ln {image} {running}; cryptpilot show; rm {running}")
    assert "warning" not in said
    assert litter(home) == []


def test_an_image_that_opens_what_is_no_volume_of_the_initrd_any_more_is_told_of(home: Path) -> None:
    """It keeps the volume's key, and opens the volume at boot; no other volume is there to look into it for."""
    (home / "etc/cryptpilot/volumes/scratch.toml").unlink()
    path = home / "etc/cryptpilot/volumes/root.toml"
    text = path.read_text()
    assert text.count("auto_open = true\n") == 1
    path.write_text(text.replace("auto_open = true\n", "auto_open = true\ninitrd = false\n"))
    show = f"ln -f {image_of(home, inside=True)} /boot/initrd.img-$(uname -r); cryptpilot show 2>&1 > /dev/null"
    ended, said = sh(home, show)
    assert ended == 0
    assert "is stale: /etc/cryptpilot/volumes/root.toml has changed; run: cryptpilot initrd rebuild" in said

    # nor is an image told of that has nothing of cryptpilot's, though it is older than the configuration
    image = image_of(home, inside=True)
    in_chroot(home, ["dracut", "--force", "--modules", "base", image, kernel_release(home)])
    path.touch()
    assert sh(home, show) == (0, "")


def test_what_the_boot_loader_has_of_an_image_is_made_anew_too_and_what_cannot_be_is_said(home: Path) -> None:
    """As kernel-install lays it out for systemd-boot: a copy of the image, and a unified kernel image."""
    kernel = kernel_release(home)
    entry = home / "boot/efi/chosen" / kernel
    entry.mkdir(parents=True)
    (home / "etc/kernel/entry-token").write_text("chosen\n")
    copy = entry / image_of(home).name
    shutil.copy2(image_of(home), copy)
    (home / "etc/cryptpilot/volumes/scratch.toml").unlink()
    ended, rows = status(home)
    paths = [f"/boot/efi/chosen/{kernel}/{copy.name}", f"/boot/{copy.name}"]
    assert (ended, [(row["image"], row["good"]) for row in rows]) == (1, [(path, False) for path in paths])

    unified = f"boot/efi/EFI/Linux/chosen-{kernel}.efi"
    (home / unified).parent.mkdir(parents=True)
    (home / unified).write_bytes(b"MZ")
    ended, said = initrd(home, f"rebuild --kernel {kernel}")
    assert ended == 1
    assert (
        f"/{unified}: was not rebuilt: cryptpilot does not make such images; run: kernel-install add {kernel} /" in said
    )
    assert (home / unified).read_bytes() == b"MZ"
    ended, rows = status(home)
    assert [(row["image"], row["good"]) for row in rows] == [*((path, True) for path in paths), (f"/{unified}", False)]
    assert (ended, "only with objcopy" in rows[2]["problem"]) == (1, True)

    (home / unified).unlink()
    assert initrd(home, f"check --kernel {kernel}")[0] == 0


def kept(tree: Path, script: str) -> str:
    """Run what must fail and leave the old image byte for byte, and nothing else; return what was said."""
    before = image_of(tree).read_bytes()
    ended, said = sh(tree, f"{script}; ended=$?; find /run -mindepth 1 -not -name 'lab-*'; exit $ended")
    assert ended != 0
    assert image_of(tree).read_bytes() == before
    assert litter(tree) == []
    return said


def test_a_new_image_that_is_not_whole_does_not_replace_the_old_one(home: Path) -> None:
    """What is installed is damaged where it only shows when a KMS is asked: at the next boot."""
    library = home / BUNDLE / "_internal/libssl.so.3"
    content = bytearray(library.read_bytes())
    content[300000] ^= 0xFF
    library.unlink()  # it is the other tree's as well
    library.write_bytes(content)
    said = kept(home, f"cryptpilot initrd rebuild --kernel {kernel_release(home)}")
    assert (
        "was not rebuilt, and is as it was: in the new image /usr/libexec/cryptpilot/_internal/libssl.so.3 was changed"
        in said
    )
    assert "the cryptpilot that is installed is damaged: reinstall it" in said
    assert "/run/" not in said


def test_when_dracut_fails_the_old_image_stays(made: Path) -> None:
    said = kept(made, f"cryptpilot initrd rebuild --kernel {kernel_release(made)} -- --no-such-option")
    assert "was not rebuilt, and is as it was: dracut: " in said
    assert "no-such-option" in said


def test_an_interrupted_rebuild_leaves_the_old_image_and_no_litter(made: Path) -> None:
    said = kept(
        made,
        f"""cryptpilot initrd rebuild --kernel {kernel_release(made)} > /run/lab-said 2>&1 & pid=$!
until compgen -G '/var/tmp/cryptpilot-*/dracut.*/initramfs/usr/libexec/cryptpilot' > /dev/null; do sleep 0.1; done
kill -TERM $pid; wait $pid; ended=$?
cat /run/lab-said
[ $ended = 130 ]; (exit $ended)""",
    )
    assert said == "cryptpilot: interrupted"


def test_a_rebuild_on_a_read_only_file_system_is_refused(made: Path) -> None:
    script = "mount --bind /boot /boot; mount -o remount,bind,ro /boot; cryptpilot initrd rebuild"
    said = kept(made, f"{script} --kernel {kernel_release(made)}")
    assert "was not rebuilt: /boot is mounted read-only" in said


@pytest.mark.parametrize(
    ("mount", "cause", "step"),
    [
        (
            "--bind /var/tmp /var/tmp; mount -o remount,bind,noexec",
            "is mounted noexec",
            "mount -o remount,exec /var/tmp",
        ),
        ("-t tmpfs -o size=1M tmpfs", "has 1 MiB left, and ", "make room: "),
    ],
    ids=["noexec", "no room"],
)
def test_a_rebuild_without_a_place_to_work_in_says_why(made: Path, mount: str, cause: str, step: str) -> None:
    said = kept(made, f"mount {mount} /var/tmp; cryptpilot initrd rebuild --kernel {kernel_release(made)}")
    assert f"was not rebuilt, and is as it was: no place to work in: /var/tmp {cause}" in said
    assert step in said.splitlines()[1]


def test_a_driver_that_the_kernel_does_not_have_is_not_to_be_had_by_a_rebuild(made: Path) -> None:
    kernel = kernel_release(made)
    said = kept(
        made,
        f"""cd /lib/modules/{kernel}; mount -t tmpfs tmpfs kernel/drivers/md
grep -v /dm- modules.dep > /run/lab-dep; mount --bind /run/lab-dep modules.dep
for file in modules.dep.bin modules.alias.bin modules.softdep; do mount --bind /dev/null $file; done
cryptpilot initrd rebuild --kernel {kernel}""",
    )
    assert f"the kernel module dm_crypt of {kernel} is missing" in said
    assert f"kernel {kernel} has no dm_crypt: install the package" in said
    assert "see how dracut was called" not in said


RULE = "/etc/udev/rules.d/99-disks.rules"
UDEV = f"""\
mknod /dev/vdz b 60 0  # a number for experiments: there is no such device
mkdir -p /dev/disk/by-id /run/udev/data; ln -s ../../vdz /dev/disk/by-id/virtio-scratch
printf 'S:disk/by-id/virtio-scratch\\nS:disk/by-path/pci-9\\nE:ID_PATH=pci-9\\n' > /run/udev/data/b60:0
echo 'KERNEL=="vdz", SYMLINK+="disk/by-id/virtio-scratch"' > {RULE}
"""
"""Has the device of the volume scratch get its name by a rule of the administrator's, as udev would have it."""


def test_a_device_named_by_an_administrators_rule_is_told_of_until_the_image_has_the_rule(home: Path) -> None:
    image, kernel = image_of(home, inside=True), kernel_release(home)
    late = (
        "the volume scratch is late: its name /dev/disk/by-id/virtio-scratch is given by"
        f" {RULE}, which is not in the image"
    )
    carry = f"echo 'install_items+=\" {RULE} \"' > /etc/dracut.conf.d/90-names.conf"
    step = f'set dev = "/dev/disk/by-path/pci-9" in /etc/cryptpilot/volumes/scratch.toml, or {carry}, then '
    ended, said = sh(home, f"{UDEV}cryptpilot initrd rebuild --kernel {kernel}")
    assert ended == 0
    assert f"{image}: warning: {late}; {step}run this again" in said.splitlines()

    running = "/boot/initrd.img-$(uname -r)"
    ended, said = sh(home, f"{UDEV}cryptpilot initrd check {image}")
    assert (ended, said.splitlines()[0]) == (1, f"cryptpilot: error: {image}: {late}")
    assert said.splitlines()[1] == f"cryptpilot:   {step}rebuild it: cryptpilot initrd rebuild --kernel {kernel}"
    _, said = sh(
        home,
        f"{UDEV}ln {image} {running}; cryptpilot config check --skip-check-passphrase --keep-checking; rm {running}",
    )
    assert f": {late}; {step}rebuild it: cryptpilot initrd rebuild" in said

    ended, said = sh(
        home, f"{UDEV}{carry}; cryptpilot initrd rebuild --kernel {kernel}; cryptpilot initrd check {image}"
    )
    assert ended == 0, said
    assert "late" not in said


def test_two_rebuilds_of_one_image_do_not_get_into_each_others_way(made: Path) -> None:
    said = kept(made, f"flock {image_of(made, inside=True)} cryptpilot initrd rebuild --kernel {kernel_release(made)}")
    assert "is being rebuilt already" in said


def test_a_rebuild_without_room_is_refused_before_it_begins(made: Path) -> None:
    image = image_of(made, inside=True)
    size = image_of(made).stat().st_size
    said = kept(
        made,
        f"""cp {image} /run/lab-image; mount -t tmpfs -o size={size * 3 // 2} tmpfs /boot; mv /run/lab-image {image}
cryptpilot initrd rebuild --kernel {kernel_release(made)}""",
    )
    assert "was not rebuilt: the new one is made beside it, which takes" in said


def test_a_new_kernel_gets_its_image_with_the_agent_in_it_by_itself(home: Path) -> None:
    """By what the distribution runs after a kernel was installed."""
    old = kernel_release(home)
    # the next one of whatever release is in the archive today: its image is the newest in /boot
    new, found = re.subn(r"(?<=-)\d+(?=-)", lambda number: str(int(number[0]) + 1), old, count=1)
    assert found
    ended, said = sh(
        home,
        f"""cp -al /usr/lib/modules/{old} /usr/lib/modules/{new}; cp /boot/vmlinuz-{old} /boot/vmlinuz-{new}
run-parts --verbose --arg={new} --arg=/boot/vmlinuz-{new} /etc/kernel/postinst.d
cryptpilot initrd check --kernel {new}""",
    )
    assert ended == 0, said
    assert said.splitlines()[-1].startswith(f"/boot/initrd.img-{new}: ok: cryptpilot")
    ended, rows = status(home)
    assert (ended, [(row["kernel"], row["good"]) for row in rows]) == (0, [(old, True), (new, True)])
