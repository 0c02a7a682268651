"""A boot that cannot go on gives no shell on its console, unless the kernel command line asks for one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.boot import parameters

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = ROOT / "initrd_hooks/cryptpilot-no-shell.sh"
HOOK = ROOT / "initrd_hooks/cryptpilot-emergency.sh"
STUBS = {
    "cryptpilot": '[ "$*" = "boot report" ] && echo THE REPORT',
    # the waits pass at once, but not before the console has it all; one more than there should be is the test's end
    "sleep": """until [ -z "$TOLD" ] || grep -q seconds "$TOLD"; do /bin/sleep 0.05; done
echo "sleep $1" >> "$LOG"; [ "$(grep -c sleep "$LOG")" -lt 4 ] || kill -KILL $PPID""",
    "systemctl": 'echo "systemctl $*" >> "$LOG"',
    "poweroff": 'echo "poweroff $*" >> "$LOG"',
    "reboot": 'echo "reboot $*" >> "$LOG"',
}
SHELL = ["rd.shell", "rd.shell=1", "rd.shell=0 rd.shell", "rd.break", "rd.break=pre-pivot", "rd.shell=yes quiet"]
NO_SHELL = [
    "",
    "rd.shell=0",
    "rd.shell=no",
    "rd.shell=1 rd.shell=off",
    "rd.shell=2",
    "rd.shellx",
    "xrd.shell",
    "* rd.shel",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the script and stand-ins for what it runs and reads."""
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "systemd").mkdir()
    text = SCRIPT.read_text()
    for theirs, ours in (
        ("/proc/cmdline", "cmdline"),
        ("/usr/bin/cryptpilot", "cryptpilot"),
        ("/dev/console", "console"),
        ("/proc/sysrq-trigger", "sysrq"),
        ("/run/systemd/system", "systemd"),
    ):
        assert theirs in text
        text = text.replace(theirs, str(tmp_path / ours))
    (tmp_path / "script").write_text(text)
    return tmp_path


def run(place: Path, command_line: str, told: str = "") -> tuple[int, list[str]]:
    """Run the script; return how it ended, and what it ran. told: the file that has all it says, to be waited for."""
    (place / "cmdline").write_text(f"BOOT_IMAGE=x root=/dev/mapper/root {command_line}\n")
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "LOG": str(place / "log"), "TOLD": told}
    done = subprocess.run(["sh", place / "script"], env=environment, stdin=subprocess.DEVNULL, timeout=60, check=False)
    return done.returncode, (place / "log").read_text().splitlines() if (place / "log").exists() else []


@pytest.mark.parametrize("words", SHELL)
def test_a_shell_is_given_if_the_kernel_command_line_asks_for_one(place: Path, words: str) -> None:
    assert run(place, words) == (0, [])
    assert parameters.asks_for_shell(words, default=False)


@pytest.mark.parametrize("words", NO_SHELL)
def test_else_the_machine_is_turned_off_after_a_minute(place: Path, words: str) -> None:
    """It never returns: what runs it would give a shell then. The stand-in for sleep ends it."""
    (place / "console").touch()
    status, ran = run(place, words, told=str(place / "console"))
    assert status == -9
    assert ran == [
        "sleep 60",
        "systemctl --force --no-block poweroff",
        "sleep 60",
        "sleep 10",
        "poweroff -n -f",
        "sleep 3600",
    ]
    assert (place / "sysrq").read_text() == "o\n"
    assert not parameters.asks_for_shell(words, default=False)
    report, said = (place / "console").read_text().splitlines()
    assert report == "THE REPORT"
    assert said.endswith("there is no shell in this image, and the machine is turned off in 60 seconds")


def test_what_it_does_then_is_what_rd_emergency_says(place: Path) -> None:
    _, ran = run(place, "rd.emergency=halt rd.emergency=reboot rd.emergency=shell")
    assert ran[:2] == ["sleep 60", "systemctl --force --no-block reboot"]
    assert (place / "sysrq").read_text() == "b\n"
    (place / "log").unlink()
    _, ran = run(place, "rd.emergency=halt")
    assert ran == ["sleep 60", "sleep 3600", "sleep 3600", "sleep 3600"]


def test_without_systemd_the_kernel_does_it(place: Path) -> None:
    (place / "systemd").rmdir()
    _, ran = run(place, "")
    assert ran[:3] == ["sleep 60", "sleep 10", "poweroff -n -f"]


def test_a_console_that_takes_nothing_keeps_no_machine_on(place: Path) -> None:
    os.mkfifo(place / "console")
    _, ran = run(place, "")
    # what waits there to be heard outlives the script, but not this test
    os.close(os.open(place / "console", os.O_RDONLY | os.O_NONBLOCK))
    assert ran[:2] == ["sleep 60", "systemctl --force --no-block poweroff"]


def test_no_key_on_the_console_ends_it(place: Path) -> None:
    """What is typed there reaches all that has the console for its terminal."""
    (place / "sleep").write_text(
        "#!/bin/sh\nkill -INT $PPID; kill -QUIT $PPID; kill -TSTP $PPID; kill -HUP $PPID\n"
        'echo "sleep $1" >> "$LOG"; [ "$(grep -c sleep "$LOG")" -lt 4 ] || kill -KILL $PPID\n'
    )
    status, ran = run(place, "")
    assert status == -9
    assert ran[1] == "systemctl --force --no-block poweroff"


def test_dracut_goes_on_only_when_it_has_said_so(tmp_path: Path) -> None:
    """Killed, say by the kernel's secure attention key, it is run again."""
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "no-shell").write_text(
        f"#!/bin/sh\necho >> {tmp_path}/ran; [ $(wc -l < {tmp_path}/ran) = 3 ] || kill -9 $$\n"
    )
    for name in ("sleep", "no-shell"):
        (tmp_path / name).chmod(0o755)
    text = HOOK.read_text().replace("/usr/bin/cryptpilot-no-shell", str(tmp_path / "no-shell"))
    done = subprocess.run(
        ["sh", "-c", f"{text}\necho on"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "on\n"
    assert (tmp_path / "ran").read_text() == "\n" * 3
