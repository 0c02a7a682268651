"""dracut's module, without dracut: which images it leaves alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MODULE = ROOT / "dracut/95cryptpilot/module-setup.sh"
LEFT_OUT, NOT_NEEDED, CARRIED = 1, 255, 0
"""What the module's check says: never, only if asked for by name, yes."""
_DRACUT = """
declare -A host_fs_types=([/dev/null]=crypto_LUKS [/dev/zero]=ext4)
dfatal() { echo "$1" >&2; }
expand_persistent_dev() { echo "$1"; }
find_binary() { return 0; }
"""
_PLAN = """
_plan() { printf '%s\\n' 'config /etc/x' 'program cryptsetup' 'device /dev/null' 'volume root' 'volume data.0'; }
"""


def bash(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script, "bash", *arguments], capture_output=True, text=True, check=False)


def check(root: Path, variables: str) -> tuple[int, str]:
    """Run the module's check with some of dracut's variables; return its status, and what it left of them."""
    (root / "etc/cryptpilot/volumes").mkdir(parents=True, exist_ok=True)
    (root / "etc/cryptpilot/volumes/root.toml").touch()
    done = bash(
        f"""{_DRACUT}{variables}
dracutsysrootdir=$1
. {MODULE}{_PLAN}
check; status=$?
echo $dracutmodules / $add_dracutmodules / ${{!host_fs_types[*]}}
exit $status""",
        str(root),
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_a_part_that_is_missing_fails_the_image(tmp_path: Path) -> None:
    """dracut goes on after a function that is not defined."""
    for path in MODULE.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    parts = sorted(tmp_path.glob("setup-*.sh"))
    assert len(parts) > 1
    for part in parts:
        text = part.read_text()
        part.unlink()
        done = bash(f"{_DRACUT}. {tmp_path}/module-setup.sh; echo it goes on")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{part.name} is missing: install cryptpilot again; no image is made" in done.stderr
        part.write_text(text)
    assert bash(f"{_DRACUT}. {tmp_path}/module-setup.sh; echo it goes on").stdout == "it goes on\n"


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ("", CARRIED),
        ("dracutmodules=all; add_dracutmodules=' systemd network '", CARRIED),
        ("dracutmodules=all; add_dracutmodules=' rescue '; unset hostonly", CARRIED),
        ("add_dracutmodules=' earlykdump '", CARRIED),
        ("IN_KDUMP=1", LEFT_OUT),
        ("add_dracutmodules=' kdumpbase '", LEFT_OUT),
        ("force_add_dracutmodules='kdumpbase'", LEFT_OUT),
        ("dracutmodules='bash systemd kdump'", LEFT_OUT),
        ("IN_KDUMP=1; force_add_dracutmodules=' cryptpilot '", CARRIED),
        ("IN_KDUMP=1; host_devs=(/dev/mapper/root)", CARRIED),
        ("IN_KDUMP=1; host_devs=(/dev/mapper/data.0)", CARRIED),
        ("IN_KDUMP=1; host_devs=(8:1 /dev/mapper/other); user_devs=(/dev/mapper/root)", CARRIED),
        ("IN_KDUMP=1; host_devs=(/dev/mapper/other /dev/mapper/dataX0 /dev/mapper/roo /dev/mapper/)", LEFT_OUT),
        ("IN_KDUMP=1; host_devs=(/dev/disk/by-uuid/root nfs:/root)", LEFT_OUT),
        ("IN_KDUMP=1; host_devs=(/dev/mapper/root); swap_devs=(/dev/mapper/root)", LEFT_OUT),
    ],
)
def test_the_image_of_a_crash_kernel_is_left_alone_unless_its_dump_goes_to_a_volume(
    tmp_path: Path, variables: str, status: int
) -> None:
    assert check(tmp_path, variables)[0] == status


def test_without_systemd_and_without_switch_root_no_image_is_made(tmp_path: Path) -> None:
    """dracut says that it is missing, and makes an image that cannot go over to its root."""
    (tmp_path / "etc/cryptpilot/volumes").mkdir(parents=True)
    (tmp_path / "etc/cryptpilot/volumes/scratch.toml").touch()
    script = f"{_DRACUT}find_binary() {{ [[ $1 != switch_root ]]; }}; dracutsysrootdir=$1; . {MODULE}{_PLAN}check"
    done = bash(script, str(tmp_path))
    assert done.returncode == LEFT_OUT
    assert "takes switch_root: install util-linux" in done.stderr


@pytest.mark.parametrize(
    ("missing", "omitted", "status"),
    [("systemd-tty-ask-password-agent", "", 1), ("", "", CARRIED), ("systemd-ask-password", " systemd ", CARRIED)],
)
def test_an_image_that_is_to_ask_and_could_not_is_not_made(
    tmp_path: Path, missing: str, omitted: str, status: int
) -> None:
    """dracut leaves out a module whose dependency it cannot have. Without systemd nothing of it is needed."""
    (tmp_path / "etc/cryptpilot/volumes").mkdir(parents=True)
    (tmp_path / "etc/cryptpilot/volumes/root.toml").touch()
    (tmp_path / "lib/systemd").mkdir(parents=True)
    systemd = tmp_path / "lib/systemd/systemd"
    systemd.touch()
    systemd.chmod(0o755)
    plan = _PLAN.replace("'config /etc/x'", "'config /etc/x' 'ask yes'")
    script = (
        f"{_DRACUT}find_binary() {{ [[ $1 != '{missing}' ]]; }}; dracutsysrootdir=$1; systemdutildir=/lib/systemd;"
        f" omit_dracutmodules='{omitted}'; . {MODULE}{plan}check"
    )
    done = bash(script, str(tmp_path))
    assert done.returncode == status
    assert (f"ask = true takes {missing}: install" in done.stderr) is bool(status)


def test_no_volume_no_module(tmp_path: Path) -> None:
    assert bash(f"dracutsysrootdir=$1; . {MODULE}; check", str(tmp_path)).returncode == NOT_NEEDED


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ("dracutmodules=all", "all / / /dev/zero"),
        ("dracutmodules=all; add_dracutmodules=' x cryptpilot  kdump '", "all / x kdump / /dev/zero"),
        ("dracutmodules='cryptpilot'", "/ / /dev/zero"),
        ("dracutmodules='base cryptpilot-more kdump'", "base cryptpilot-more kdump / / /dev/zero"),
    ],
)
def test_where_it_is_left_out_dracut_neither_misses_it_nor_opens_its_volumes(
    tmp_path: Path, variables: str, left: str
) -> None:
    """dracut fails an image that lacks what it was asked for by name; and it opens LUKS disks that are in use."""
    assert check(tmp_path, f"IN_KDUMP=1; {variables}") == (LEFT_OUT, left)


def test_where_it_is_carried_dracuts_variables_stay(tmp_path: Path) -> None:
    status, left = check(tmp_path, "dracutmodules=all; add_dracutmodules=' cryptpilot '")
    assert (status, left.split(" / ")[:2]) == (CARRIED, ["all", "cryptpilot"])
    assert sorted(left.split(" / ")[2].split()) == ["/dev/null", "/dev/zero"]


def test_mappings_are_found_through_any_number_of_layers(tmp_path: Path) -> None:
    """An LV on a RAID on a volume and a disk's partition."""
    for node, name, below in (
        ("dm-2", "vg-lv", ["md0"]),
        ("md0", "", ["dm-1", "vda1"]),
        ("dm-1", "data0", ["vdb"]),
        ("vdb", "", []),
    ):
        (tmp_path / node / "slaves").mkdir(parents=True)
        for other in below:
            (tmp_path / node / "slaves" / other).symlink_to(tmp_path / other)
        if name:
            (tmp_path / node / "dm").mkdir()
            (tmp_path / node / "dm/name").write_text(f"{name}\n")
    (tmp_path / "vda").mkdir()
    (tmp_path / "vda1").symlink_to("vda/vda1")
    (tmp_path / "vda/vda1").mkdir()
    (tmp_path / "vda/vda1/partition").touch()
    (tmp_path / "vda/dm").mkdir()
    (tmp_path / "vda/dm/name").write_text("mpatha\n")
    done = bash(f". {MODULE}; _mappings_below $1", str(tmp_path / "dm-2"))
    assert (done.stdout.split(), done.stderr) == (["vg-lv", "data0", "mpatha"], "")


_ALONE = """
_plan() { printf '%s\\n' 'config /etc/x' 'program cryptsetup' 'volume scratch'; }
"""


@pytest.mark.parametrize(
    ("modules", "asked"),
    [
        (["99base", "40network"], ["dm", "rootfs-block"]),
        (["80base", "77initqueue", "40network"], ["dm", "rootfs-block", "initqueue"]),
        (["80base", "77initqueue-more", "770initqueue"], ["dm", "rootfs-block"]),
    ],
)
def test_what_runs_hooks_is_asked_for_where_it_is_a_module_of_its_own(
    tmp_path: Path, modules: list[str], asked: list[str]
) -> None:
    """Since dracut 108. An older one would leave the whole of cryptpilot out for a module that it does not have."""
    for name in modules:
        (tmp_path / "modules.d" / name).mkdir(parents=True)
    done = bash(f"dracutbasedir=$1; omit_dracutmodules=systemd; . {MODULE}{_ALONE}depends", str(tmp_path))
    assert (done.stdout.split(), done.stderr) == (asked, "")


def test_libraries_that_a_program_opens_while_it_runs_are_found(tmp_path: Path) -> None:
    """As systemd notes them: names in an order of preference, some of which are not there; and what these need."""
    root = tmp_path / "root"
    for place, text in {
        "usr/lib/program": '\\0FDO\\0[{"soname":["libone.so.1"]},{"soname":["libtwo.so.9","libtwo.so.2"]}]\\0',
        "usr/lib64/libone.so.1": '[{"soname":["libthree.so.3"]}]',
        "usr/lib/libtwo.so.2": "",
        "usr/lib64/libthree.so.3": "",
    }.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    # what would be loaded before it starts is another's business
    script = 'dracutsysrootdir=$1; libdirs="/usr/lib64 /usr/lib"; chroot() { :; }; _libraries /usr/lib/program'
    done = bash(f". {MODULE}; {script}", str(root))
    assert done.stdout.split() == ["/usr/lib/libtwo.so.2", "/usr/lib64/libone.so.1", "/usr/lib64/libthree.so.3"]


UNIT = """\
[Unit]
Description=Proves what runs here
After=network.target \\
    local-fs.target
Wants = network-online.target
ConditionPathExists=/dev/null
[Service]
ExecStartPre=-/sbin/modprobe tdx_guest
ExecStart=/usr/bin/agent --config-file /etc/agent.toml -c=/etc/more.toml /etc/none.toml /usr/lib/other -a unix:///run/s
Restart=always
[Install]
WantedBy=multi-user.target
"""


def install_unit(root: Path, systemd: str = "true") -> subprocess.CompletedProcess[str]:
    """Install a unit into an image below `root`/image, with what dracut would copy written down."""
    for path in ("etc/agent.toml", "etc/more.toml", "usr/lib/other"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return bash(
        f"""{_DRACUT}
dracutsysrootdir=$1 initdir=$1/image systemdsystemunitdir=/usr/lib/systemd/system
dracut_module_included() {{ {systemd}; }}
inst_simple() {{ echo "$1" >> "$initdir/copied"; }}
inst_multiple() {{ [[ $1 ]] && echo "$1" >> "$initdir/copied"; }}
. {MODULE}
mkdir "$initdir"
_install_unit agent.service""",
        str(root),
    )


def test_a_unit_goes_in_as_the_system_runs_it_but_for_what_it_waits_for(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(UNIT)
    done = install_unit(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    there = tmp_path / "image/etc/systemd/system"
    lines = (there / "agent.service").read_text().splitlines()
    assert lines == [line for line in UNIT.splitlines() if "target" not in line or line.startswith("WantedBy")]
    assert (tmp_path / "image/copied").read_text().split() == [
        *("/sbin/modprobe", "/usr/bin/agent", "/etc/agent.toml", "/etc/more.toml"),
    ]
    order = (there / "agent.service.d/cryptpilot.conf").read_text()
    assert "DefaultDependencies=no" in order
    assert "After" not in order
    started = there / "cryptpilot-initrd.service.d/agent.service.conf"
    assert started.read_text() == "[Unit]\nWants=agent.service\n"


def test_a_unit_that_needs_the_network_starts_when_that_is_up(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\nAfter=network-online.target attestation-agent.service\nWants=network-online.target\n")
    assert install_unit(tmp_path).returncode == 0
    there = tmp_path / "image/etc/systemd/system"
    assert (there / "agent.service").read_text() == "[Unit]\n"
    assert "\nAfter=network-online.target\n" in (there / "agent.service.d/cryptpilot.conf").read_text()


def test_what_a_unit_says_in_several_lines_goes_in_like_one(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/agent.service"
    unit.parent.mkdir(parents=True)
    text = (
        "[Service]\nExecStart=/usr/bin/agent \\\n# of the KBS\n"
        "  --config-file /etc/agent.toml \\\n  -c=/etc/more.toml\nUser=x\n"
    )
    unit.write_text("[Unit]\nAfter=a.target \\\n  b.target\n" + text)
    assert install_unit(tmp_path).returncode == 0
    assert (tmp_path / "image/copied").read_text().split() == ["/usr/bin/agent", "/etc/agent.toml", "/etc/more.toml"]
    assert (tmp_path / "image/etc/systemd/system/agent.service").read_text() == "[Unit]\n" + text


def test_what_an_administrator_changes_of_a_unit_goes_in(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/agent.service"
    drop_in = tmp_path / "etc/systemd/system/agent.service.d/override.conf"
    for path, text in (
        (unit, "[Service]\nExecStart=/usr/bin/agent\n"),
        (
            drop_in,
            "[Unit]\nWants=a.target\n[Service]\nEnvironmentFile=-/etc/more.toml\nExecStart=\nExecStart=/usr/bin/other\n",
        ),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert install_unit(tmp_path).returncode == 0
    assert (tmp_path / "image/etc/systemd/system/agent.service").read_text().splitlines() == [
        *("[Service]", "ExecStart=/usr/bin/agent", "", "[Unit]", "[Service]"),
        *("EnvironmentFile=-/etc/more.toml", "ExecStart=", "ExecStart=/usr/bin/other"),
    ]
    assert "/etc/more.toml" in (tmp_path / "image/copied").read_text().split()


def test_an_administrators_unit_goes_before_the_packages(tmp_path: Path) -> None:
    for place, what in (("usr/lib", "package"), ("etc", "administrator")):
        unit = tmp_path / place / "systemd/system/agent.service"
        unit.parent.mkdir(parents=True)
        unit.write_text(f"[Unit]\nDescription={what}\n")
    assert install_unit(tmp_path).returncode == 0
    assert "administrator" in (tmp_path / "image/etc/systemd/system/agent.service").read_text()


@pytest.mark.parametrize(
    ("systemd", "said"), [("false", "takes an image with systemd"), ("true", "is missing: install agent")]
)
def test_without_the_unit_or_systemd_no_image_is_made(tmp_path: Path, systemd: str, said: str) -> None:
    done = install_unit(tmp_path, systemd)
    assert done.returncode == 1
    assert said in done.stderr


def test_nothing_but_the_kernel_command_line_says_what_to_resume_from(tmp_path: Path) -> None:
    """As systemd reads it: a condition of more than there is has a unit started for nothing."""
    script = f"""{_DRACUT}initdir=$1; moddir=$2; systemdsystemunitdir=/usr/lib/systemd/system; SYSTEMCTL=true
. {MODULE}
inst_simple() {{ mkdir -p "$initdir${{2%/*}}" && cp "$1" "$initdir$2"; }}
_start_by_systemd"""
    done = bash(script, str(tmp_path), str(ROOT / "initrd_hooks"))
    assert (done.returncode, done.stderr) == (0, "")
    drop_in = tmp_path / "etc/systemd/system/systemd-hibernate-resume.service.d/cryptpilot-resume.conf"
    lines = [line for line in drop_in.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["[Unit]", "ConditionKernelCommandLine=resume"]
