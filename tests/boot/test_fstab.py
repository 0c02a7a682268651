"""What systemd itself makes of fstab, beside what we take it to make of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.names import escape_path
from cryptpilot_boot.units.fstab import before_network, parse
from cryptpilot_boot.units.units import units
from tests import machines
from tests.lab.tree import RELEASES, SHARE, in_chroot, root_tree

GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
PATHS = {
    "RequiresMountsFor": "",
    "WantsMountsFor": "",
    "StateDirectory": "/var/lib/",
    "LogsDirectory": "/var/log/",
    "CacheDirectory": "/var/cache/",
}
"""Settings by which a unit requires something to be mounted, and what their paths are below."""
OUT = f"{SHARE}/out"
LINES = """\
# /dev/mapper/comment /comment ext4 defaults
/dev/mapper/two /two
/dev/mapper/three /three ext4
/dev/mapper/four /four/ ext4 noatime # as one likes
 /dev/mapper/five\t/my\\040own\\134five ext4 defaults 0 2
/dev/mapper/bytes /b\\303y ext4
/dev/mapper/via /srv/link/via ext4
/dev/mapper/lost /srv/nowhere/lost ext4
/dev/mapper/swap0 none swap
/dev/mapper/net /net ext4 _netdev
host:/x /net/nfs nfs
host:/y /two/sshfs fuse.sshfs
/two/dir /bound none bind
/dev/mapper/one
"""
OTHERS = "/dev/mapper/not-ours /other ext4\n/dev/mapper/nofail /nofail ext4 ro,nofail\n"


def volumes() -> list[Volume]:
    names = ("two", "three", "four", "five", "bytes", "via", "lost", "swap0", "net", "one", "nofail")
    return [Volume(name, f"/dev/{name}", Otp(), Path("/x.toml"), auto_open=True) for name in names]


@pytest.mark.parametrize("release", RELEASES)
def test_we_name_what_systemd_requires_as_systemd_does(lab: None, release: str, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("is/not/there")
    (tmp_path / "fstab").write_text(LINES + OTHERS)
    (tmp_path / "out").mkdir()
    # systemd takes a machine whose /sys cannot be written to for a container, and ignores its disks
    command = f"umount /sys && SYSTEMD_FSTAB={SHARE}/fstab SYSTEMD_PROC_CMDLINE= {GENERATOR} {' '.join(3 * [OUT])}"
    in_chroot(root_tree(release), ["sh", "-c", command], share=tmp_path)

    def resolve(path: str) -> str:
        """Do as in the tree, which sees the directory of this test at SHARE."""
        return os.path.realpath(path.replace(SHARE, str(tmp_path), 1)).replace(str(tmp_path), SHARE, 1)

    required = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*.target.requires/*")}
    made = units(volumes(), LINES + OTHERS, [], 90, resolve=resolve)
    assert required - set(made.masks) == {"local-fs.target.requires/other.mount"}, "and no other machine's trouble"
    # nor does 257 make swap where processes have a namespace of their own, as here
    assert set(made.masks) - required <= {"swap.target.requires/dev-mapper-swap0.swap"}
    wanted = {name.replace(".requires/", ".wants/") for name in made.masks}
    assert wanted <= set(made.links)


NETWORK = """\
[Unit]
Description=Brings the network up, in the order NetworkManager does
Before=network-online.target
[Service]
Type=oneshot
ExecStart=true
"""
UNIT_PATH = f"{SHARE}/early:{SHARE}/units:{SHARE}/normal:/usr/lib/systemd/system"


def generated(
    tree: Path, work: Path, site: machines.Site, lines: str, then: str, before: str = "true", more: str = ""
) -> str:
    """Have systemd and the product read an fstab, with a volume whose key comes over the network; run a script then.

    more: lines for the volume's file.
    """
    (work / "etc/volumes").mkdir(parents=True)
    text = more + machines.volume_file(site, volume="data", dev="/dev/disk/by-id/virtio-data")
    (work / "etc/volumes/data.toml").write_text(text)
    (work / "etc/volumes/data.toml").chmod(0o600)
    for name in ("normal", "early", "late"):
        (work / name).mkdir()
    (work / "fstab").write_text(lines)
    (work / "script").write_text(
        f"""\
set -e
if [ -z "$inside" ]; then
    umount /sys  # see above
    mount --rbind / /mnt  # for its root is no mount, and that of a machine is
    inside=1 exec chroot /mnt sh "$0"
fi
mount --bind {SHARE}/fstab /etc/fstab
{GENERATOR} {SHARE}/normal {SHARE}/early {SHARE}/late
{before}
cryptpilot --config-dir {SHARE}/etc generator {SHARE}/normal {SHARE}/early {SHARE}/late 2>&1 || echo "status $?"
{then}
"""
    )
    return in_chroot(tree, ["sh", f"{SHARE}/script"], share=work)


TEMPORARY = "/tmp"  # noqa: S108 - nothing is put there


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("where", ["/var", "/var/log", TEMPORARY, "/data", "/var/lib/data"])
def test_no_mount_of_a_late_volume_makes_an_ordering_cycle(
    tree: Path, site: machines.Site, tmp_path: Path, where: str, required: bool
) -> None:
    (tmp_path / "units/network-online.target.wants").mkdir(parents=True)
    (tmp_path / "units/net.service").write_text(NETWORK)
    (tmp_path / "units/network-online.target.wants/net.service").symlink_to("../net.service")
    verify = f"SYSTEMD_UNIT_PATH={UNIT_PATH} systemd-analyze verify --man=no multi-user.target 2>&1 || true"
    more = "required = true\n" if required else ""
    options = "nofail" if required else "defaults"  # which does not count then
    said = generated(tree, tmp_path, site, f"/dev/mapper/data {where} ext4 {options} 0 2\n", verify, more=more)
    assert "cycle" not in said
    name = escape_path(where)
    assert (tmp_path / f"normal/{name}.mount").exists()
    assert (tmp_path / f"normal/local-fs.target.requires/{name}.mount").is_symlink()
    masked = (tmp_path / f"early/local-fs.target.requires/{name}.mount").is_symlink()
    assert masked is not required, "or else it is required, and that has systemd wait for it"
    remote = where in ("/data", "/var/lib/data") and not required
    assert (tmp_path / f"early/{name}.mount").exists() == remote, "what is needed early is left as it is"


@pytest.mark.parametrize("release", RELEASES)
def test_what_systemd_requires_before_the_network_is_known(lab: None, release: str) -> None:  # noqa: ARG001
    units_of_it = root_tree(release) / "usr/lib/systemd/system"
    paths = set()
    for file in [*units_of_it.glob("*.service"), *units_of_it.glob("*.socket"), units_of_it / "basic.target"]:
        text = file.read_text() if file.is_file() else ""
        if file.name == "basic.target" or "\nDefaultDependencies=no" in text:
            for setting, above in PATHS.items():
                for value in re.findall(rf"^{setting}=(.*)$", text, re.MULTILINE):
                    paths |= {above + path for path in value.split()}
    paths = {path for path in paths if not path.startswith("/run/")}
    assert {"/var", "/var/log/journal", "/var/lib/systemd/pstore"} <= paths
    for path in paths:
        assert before_network(parse(f"/dev/mapper/data {path} ext4\n")), path


# As the one of systemd 239: it knows of no other place than /etc/fstab.
OLD = f'#!/bin/sh\nunset SYSTEMD_FSTAB\nexec {SHARE}/generator "$@"\n'
# One that gets to see the machine's fstab, whatever we do.
DEAF = f'#!/bin/sh\nunset SYSTEMD_FSTAB\nmount --bind {SHARE}/fstab /etc/fstab\nexec {SHARE}/generator "$@"\n'
HOME = "/dev/mapper/data /home/100%data ext4 ro 0 2\n/dev/vdb /opt ext4\n"
NAME = escape_path("/home/100%data")
REPLACE = f"cp {GENERATOR} {SHARE}/generator; chmod +x {SHARE}/other; mount --bind {SHARE}/other {GENERATOR}"


def remote_mount(tree: Path, site: machines.Site, work: Path, other: str) -> tuple[str, str]:
    """Return what the product makes of HOME beside another systemd-fstab-generator: the mount, and what it said."""
    (work / "other").write_text(other)
    said = generated(tree, work, site, HOME, "", REPLACE if other else "true")
    early = {str(path.relative_to(work / "early")) for path in (work / "early").rglob("*") if not path.is_dir()}
    assert {name for name in early if not name.startswith("dev-mapper-data.device.d/")} <= {
        f"{NAME}.mount",
        f"local-fs.target.requires/{NAME}.mount",
        f"remote-fs.target.requires/{NAME}.mount",
    }, "nothing of /opt, which is none of our business"
    assert (work / f"early/remote-fs.target.requires/{NAME}.mount").readlink() == Path("/dev/null")
    return (work / f"early/{NAME}.mount").read_text(), said


@pytest.mark.parametrize("other", ["", OLD], ids=["252", "239"])
def test_systemd_of_any_age_reads_our_line_in_place_of_fstab(
    tree: Path, site: machines.Site, tmp_path: Path, other: str
) -> None:
    text, said = remote_mount(tree, site, tmp_path, other)
    assert said == ""
    assert "SourcePath=/etc/fstab\n" in text, "or else systemd looks for changes in a file that is gone"
    assert "Requires=systemd-fsck@dev-mapper-data.service\n" in text
    assert "Options=ro,_netdev\n" in text
    assert "local-fs.target" not in text


def test_where_systemd_does_not_read_our_line_the_mount_is_a_remote_one_all_the_same(
    tree: Path, site: machines.Site, tmp_path: Path
) -> None:
    text, said = remote_mount(tree, site, tmp_path, DEAF)
    problem = "its home-100\\x25data.mount does not wait for the network"
    assert f"the output of systemd-fstab-generator is not understood: {problem}" in said
    assert said.endswith("status 1\n")
    assert "Where=/home/100%%data\n" in text
    assert "Options=ro,_netdev\n" in text
