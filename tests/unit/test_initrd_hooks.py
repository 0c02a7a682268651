"""dracut's hooks that are no more than a decision."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot import paths
from cryptpilot_boot.system import init
from tests.lab.run import started

if TYPE_CHECKING:
    from collections.abc import Callable

HOOK = ROOT / "initrd_hooks/cryptpilot-timeout.sh"


@pytest.mark.parametrize(
    ("state", "count"), [("activating", "0"), ("active", "240"), ("failed", "240"), ("inactive", "240"), ("", "240")]
)
def test_with_systemd_dracut_counts_anew_while_the_agent_is_at_work(tmp_path: Path, state: str, count: str) -> None:
    """As dracut runs it: in the shell of its main loop. systemctl stands in for itself, and ends as it does."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$*" = "is-active cryptpilot-initrd.service" ] && echo {state}\nexit 3\n')
    systemctl.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", f'main_loop=240; job={HOOK} . {HOOK}; echo "$main_loop"'],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "DRACUT_SYSTEMD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{count}\n", "")


AGENT = ROOT / "initrd_hooks/cryptpilot-initrd.sh"


def agent_script(directory: Path, console: str) -> list[str | Path]:
    """Return what runs the script that runs the agent; `directory` is its /run/cryptpilot, and `echo` its agent."""
    text = AGENT.read_text().replace("/run/cryptpilot", str(directory)).replace("/dev/console", console)
    text = text.replace("/dev/kmsg", "/dev/null").replace(
        "/usr/bin/cryptpilot boot-service --stage initrd", "echo said"
    )
    (directory / "script").write_text(text)
    return ["sh", directory / "script"]


def test_without_systemd_the_end_of_the_agent_is_told_when_all_was_said(tmp_path: Path) -> None:
    console = tmp_path / "console"
    subprocess.run(agent_script(tmp_path, str(console)), check=True, timeout=20)
    assert console.read_text().endswith(": said\n")
    assert {path.name for path in tmp_path.iterdir()} == {"console", "script", "initrd.ended", "may-stop-boot"}


def test_without_systemd_the_boot_does_not_wait_for_a_console_that_takes_nothing(tmp_path: Path) -> None:
    console = tmp_path / "console"
    os.mkfifo(console)  # to open it for writing waits for a reader
    with started(agent_script(tmp_path, str(console)), start_new_session=True) as process:
        moment = time.monotonic() + 20
        while not (tmp_path / "initrd.ended").exists() and time.monotonic() < moment:
            time.sleep(0.1)
        assert (tmp_path / "initrd.ended").exists()
        os.killpg(process.pid, signal.SIGKILL)


def test_the_agent_starts_where_none_of_its_files_can_be_made(tmp_path: Path) -> None:
    """As where /run is full from the start."""
    (tmp_path / "file").touch()
    text = AGENT.read_text().replace("run=/run/cryptpilot", f"run={tmp_path}/file/run").replace("tries=30", "tries=1")
    text = text.replace("/dev/console", str(tmp_path / "console")).replace("/dev/kmsg", "/dev/null")
    text = text.replace("/usr/bin/cryptpilot boot-service --stage initrd", "echo said")
    subprocess.run(["sh", "-c", text], check=False, timeout=20, capture_output=True)
    assert (tmp_path / "console").read_text().endswith(": said\n")


def test_that_the_boot_stops_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(agent_script(tmp_path, "/dev/null"), check=True, timeout=20)
    monkeypatch.setattr(paths, "STOP_BOOT", tmp_path / "stop-boot")
    monkeypatch.setattr(paths, "MAY_STOP_BOOT", tmp_path / "may-stop-boot")
    monkeypatch.setattr(init, "runs_systemd", lambda: False)
    monkeypatch.setattr(Path, "touch", lambda _: pytest.fail("a file was made"))
    init.stop_boot()
    assert (tmp_path / "stop-boot").exists()


NETWORK = ROOT / "initrd_hooks/cryptpilot-network.sh"
CONNECTIONS = ROOT / "initrd_hooks/cryptpilot-connections.sh"
NM_RUN = "/usr/sbin/NetworkManager --configure-and-quit=initrd --no-daemon\n: > /tmp/nm.done\n"
GUARD = "[ -e /run/cryptpilot/late ] && exit 0\n"


def network_hook(
    work: Path, command_lines: dict[str, str], *, systemd: bool, nm_run: str = NM_RUN, before: str = ""
) -> dict[str, str]:
    """Run the hook, as dracut does, where it has others; return what it made of them, by name.

    before: a script that is run first, in the same shell.
    """
    hooks = {"finished/wait-network.sh": "false\n", "finished/nm.sh": "[ -f done ]\n", "settled/99-nm-run.sh": nm_run}
    for name, text in {**{f"hooks/initqueue/{name}": text for name, text in hooks.items()}, **command_lines}.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    text = NETWORK.read_text().replace("/proc/cmdline", f"{work}/cmdline").replace("/etc/cmdline.d", f"{work}/conf")
    (work / "hook").write_text(text.replace("/run/cryptpilot/nm", f"{work}/nm").replace("755 /run", f"755 {work}"))
    script = (
        f"{before}\nhookdir={work}/hooks; DRACUT_SYSTEMD={'1' if systemd else ''}; . {work}/hook; echo ${{wait-unset}}"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("unset\n", "")
    return {name: (work / "hooks/initqueue" / name).read_text() for name in hooks}


@pytest.mark.parametrize("systemd", [True, False])
def test_dracut_waits_for_a_network_no_longer_than_the_agent_does(tmp_path: Path, systemd: bool) -> None:
    made = network_hook(
        tmp_path, {"cmdline": "root=/dev/x", "conf/95cryptpilot.conf": "rd.neednet=1\n"}, systemd=systemd
    )
    assert made["finished/wait-network.sh"] == f"{GUARD}false\n"
    assert made["finished/nm.sh"] == f"{GUARD}[ -f done ]\n"
    assert made["settled/99-nm-run.sh"].endswith(". /usr/libexec/cryptpilot/beside.sh\n")
    assert (tmp_path / "nm-run.sh").read_text() == NM_RUN


@pytest.mark.parametrize("file", ["cmdline", "conf/35-neednet.conf"])
def test_where_others_have_asked_for_a_network_dracut_waits_as_it_does(tmp_path: Path, file: str) -> None:
    files = {"cmdline": "quiet", "conf/95cryptpilot.conf": "rd.neednet=1\n", file: "rd.neednet\n"}
    made = network_hook(tmp_path, files, systemd=False)
    assert list(made.values()) == ["false\n", "[ -f done ]\n", NM_RUN]


def test_where_networkmanager_has_a_unit_its_hook_stays(tmp_path: Path) -> None:
    run = f'if [ -z "$DRACUT_SYSTEMD" ]; then\n    {NM_RUN}fi\n'
    assert network_hook(tmp_path, {"cmdline": ""}, systemd=True, nm_run=run)["settled/99-nm-run.sh"] == run


def test_what_runs_networkmanager_is_the_same_when_dracut_begins_again(tmp_path: Path) -> None:
    """As it does when an emergency shell is left."""
    once, again = (network_hook(tmp_path, {"cmdline": ""}, systemd=False, nm_run=run) for run in (NM_RUN, "other\n"))
    assert "beside.sh" in once["settled/99-nm-run.sh"]
    assert again["settled/99-nm-run.sh"] == "other\n"
    assert (tmp_path / "nm-run.sh").read_text() == NM_RUN


def test_where_the_hook_of_networkmanager_cannot_be_moved_it_stays(tmp_path: Path) -> None:
    """As where /run is full: otherwise there would be no network at all."""
    full = 'mv() { case $2 in */nm-run.sh) return 1 ;; *) command mv "$@" ;; esac; }'
    made = network_hook(tmp_path, {"cmdline": ""}, systemd=False, before=full)
    assert made["settled/99-nm-run.sh"] == NM_RUN
    assert made["finished/nm.sh"] == f"{GUARD}[ -f done ]\n"


@pytest.mark.parametrize("made", [True, False])
def test_networkmanager_s_connections_are_made_once(tmp_path: Path, made: bool) -> None:
    """A device in use names its connection by a UUID that is new each time."""
    connections = tmp_path / "system-connections"
    if made:
        connections.mkdir()
        (connections / "default.nmconnection").touch()
    config = tmp_path / "cmdline/99-nm-config.sh"
    config.parent.mkdir()
    config.write_text("echo connections are made\n")
    text = CONNECTIONS.read_text().replace("/run/NetworkManager/system-connections", str(connections))
    (tmp_path / "cmdline/98-cryptpilot-connections.sh").write_text(text)
    # as dracut's source_all does
    script = f'hookdir={tmp_path}; for f in {tmp_path}/cmdline/*.sh; do if [ -e "$f" ]; then . "$f"; fi; done'
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("" if made else "connections are made\n", "")


def test_networkmanager_runs_beside_the_main_loop_again_and_again_until_the_agent_has_ended(tmp_path: Path) -> None:
    text = beside(tmp_path).replace("/run/cryptpilot", str(tmp_path))
    (tmp_path / "beside.sh").write_text(text.replace("/etc/initrd-release", "/dev/null"))
    # what never finds an address, in turns that are shorter than NetworkManager's
    (tmp_path / "nm-run.sh").write_text(
        f"echo turn >> {tmp_path}/turns; sh -c 'sleep 60; :' {mark(tmp_path)} {tmp_path}"
    )
    turns = tmp_path / "turns"
    begun = time.monotonic()
    subprocess.run(["sh", "-c", f". {tmp_path}/beside.sh"], check=True, timeout=20, stdout=subprocess.DEVNULL)
    try:
        assert time.monotonic() - begun < 10
        assert wait_until(lambda: len(processes(str(tmp_path))) == 1)
        # there are two for the moment in which the shell starts sleep
        os.kill(min(processes(str(tmp_path))), signal.SIGTERM)
        assert wait_until(lambda: turns.read_text() == "turn\nturn\n")
        assert wait_until(lambda: len(processes(str(tmp_path))) == 1)
    finally:
        (tmp_path / "over").touch()  # or it would go on for good
    assert wait_until(lambda: processes(str(tmp_path)) == [])
    time.sleep(1.5)
    assert turns.read_text() == "turn\nturn\n"


def test_dracut_s_main_loop_goes_on_where_it_cannot_be_noted_what_runs_beside_it(tmp_path: Path) -> None:
    text = beside(tmp_path)
    text = text.replace("/run/cryptpilot/nm-runs", f"{tmp_path}/absent/nm-runs").replace(
        "/run/cryptpilot", str(tmp_path)
    )
    (tmp_path / "beside.sh").write_text(text)
    (tmp_path / "over").touch()
    script = f". {tmp_path}/beside.sh; wait; echo goes on"
    done = subprocess.run(["sh", "-c", script], check=True, timeout=20, capture_output=True, text=True)
    assert done.stdout == "goes on\n"


def beside(work: Path) -> str:
    """Return the hook, which ends programs by an argument: here by that of one test."""
    text = (ROOT / "initrd_hooks/cryptpilot-beside.sh").read_text()
    assert text.count("configure-and-quit") == 1
    return text.replace("configure-and-quit", mark(work))


def mark(work: Path) -> str:
    return f"quit{str(work).replace('/', '-')}"


def processes(argument: str) -> list[int]:
    """Return the processes that were given an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if argument.encode() in words:
            found.append(int(path.parent.name))
    return found


def wait_until(look: Callable[[], bool]) -> bool:
    """Wait until it is so, for 20 s at most."""
    moment = time.monotonic() + 20
    while not look() and time.monotonic() < moment:
        time.sleep(0.05)
    return look()
