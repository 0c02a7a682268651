"""The command line: what it says, and the exit status it ends with."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cryptpilot_boot
from cryptpilot_boot import keys, volume
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.cli import table
from cryptpilot_boot.commands import initrd, volumes
from cryptpilot_boot.config import load
from cryptpilot_boot.errors import CryptpilotError, Interrupted, ProgramError
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.system import block, init, process
from cryptpilot_boot.system.signals import SIGNALS
from tests.unit.stages import run as run_stage
from tests.unit.test_config import GUIDE_KMS, GUIDE_OTP, ROLE, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give the test runner its signals back, which a command takes."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command line and return its exit status, standard output and standard error."""
    try:
        status = cli.main(argv)
    except SystemExit as end:
        status = int(end.code or 0)
    output = capsys.readouterr()
    return status, output.out, output.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"cryptpilot {cryptpilot_boot.__version__}\n", "")


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys)
    assert status == cli.EXIT_USAGE
    assert "usage: cryptpilot" in err


BROKEN = "volume = 3\n"


def broken(directory: Path, *texts: str) -> str:
    """Configure these volumes beside a file that cannot be used; return what is said of it."""
    configure(directory, *texts, BROKEN)
    return f'cryptpilot: error: {directory}/volumes/v{len(texts)}.toml:1: "volume" must be a string\n'


def test_a_command_that_cannot_be_loaded_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the bundle may be missing, or unreadable on a disk that fails."""
    monkeypatch.setitem(sys.modules, "cryptpilot_boot.cli.verbs.close", None)
    assert cli.main(["close", "data"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "cryptpilot: error: the command close cannot be loaded: internal error: ModuleNotFoundError" in said.err
    assert "install cryptpilot again" in said.err


def test_a_bad_file_is_told_and_the_others_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = broken(tmp_path, GUIDE_OTP)
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert (status, err) == (cli.EXIT_USAGE, said)
    assert "data0" in out


def test_without_a_good_file_there_is_nothing_to_show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = broken(tmp_path)
    out = f"No volumes can be used in {tmp_path}/volumes.\n"
    assert run(capsys, "-c", str(tmp_path), "show") == (cli.EXIT_USAGE, out, said)


@pytest.mark.parametrize("command", [["init", "data0", "--yes"], ["initrd", "plan"]], ids="-".join)
def test_a_bad_file_stops_what_has_to_know_all_of_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(volumes, "init", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setattr(initrd, "plan", lambda *_: pytest.fail("it was begun"))
    said = broken(tmp_path, GUIDE_OTP)
    assert run(capsys, "-c", str(tmp_path), *command) == (cli.EXIT_USAGE, "", said)


@pytest.mark.parametrize(("verb", "work"), [("open", "open_volume"), ("close", "close")])
def test_a_bad_file_keeps_no_other_volume_from_being_opened_or_closed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, work: str
) -> None:
    monkeypatch.setattr(
        volume, work, lambda *_, **__: volume.Opened(volume.Opening.CURRENT) if verb == "open" else True
    )
    said = broken(tmp_path, GUIDE_OTP)
    status, out, err = run(capsys, "-c", str(tmp_path), verb, "data0")
    assert (status, err) == (cli.EXIT_USAGE, said)
    assert out.startswith("data0: /dev/mapper/data0 is ")


@pytest.mark.root
def test_a_failure_counts_for_more_than_a_bad_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = broken(tmp_path, GUIDE_OTP.replace("/dev/nvme1n1p1", "/dev/not-there"))
    status, _, err = run(capsys, "-c", str(tmp_path), "open", "data0")
    assert status == cli.EXIT_FAILED
    assert err.startswith(f"{said}cryptpilot: error: data0: /dev/not-there: no such device\n")


def test_a_volume_that_is_not_found_may_be_in_a_bad_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = broken(tmp_path, GUIDE_OTP)
    status, out, err = run(capsys, "-c", str(tmp_path), "open", "scratch")
    assert (status, out) == (cli.EXIT_USAGE, "")
    assert err.replace(said, "").splitlines() == [
        f'cryptpilot: error: no volume "scratch" is configured in {tmp_path}/volumes',
        "cryptpilot:   configured volumes: data0; or one of the files that cannot be used defines it",
    ]


def boot(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    stage_name: str,
    *names: str,
    words: str = "",
) -> tuple[int, str, list[dict[str, Any]]]:
    """Run a stage whose kernel command line names data0; return its status, what it said, and its event log.

    names: volumes named on its own command line. words: more on the kernel's.
    """
    events = directory / "events.jsonl"
    writer = eventlog.writer
    monkeypatch.setattr(eventlog, "writer", lambda name: writer(name, events))
    monkeypatch.setattr(init, "kernel_command_line", lambda: f"root=/dev/mapper/data0 {words}")
    monkeypatch.setattr(block, "is_block_device", lambda path: not path.startswith("/dev/mapper/"))
    monkeypatch.setattr(volume, "open_volume", lambda *_, **__: volume.Opened(volume.Opening.CURRENT))
    monkeypatch.setattr(process, "lock_memory", lambda: None)
    status, out, err = run(capsys, "-c", str(directory), "boot-service", "--stage", stage_name, *names)
    text = events.read_text() if events.is_file() else ""
    return status, out + err, [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("stage_name", "expected"), [("initrd", cli.EXIT_OK), ("system", cli.EXIT_FAILED)])
def test_a_bad_file_keeps_no_other_volume_from_being_opened_at_boot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_name: str, expected: int
) -> None:
    said = broken(tmp_path, GUIDE_OTP)
    status, output, events = boot(capsys, monkeypatch, tmp_path, stage_name)
    assert status == expected
    assert "data0: /dev/mapper/data0 opened in " in output
    assert said in output
    (event,) = [event for event in events if event["step"] == "config"]
    assert (event["phase"], event["stage"]) == ("fail", stage_name)
    assert f"cryptpilot: error: {event['facts']['error']}\n" == said
    assert output.count(event["facts"]["error"]) == 1


@pytest.mark.parametrize("stage_name", ["initrd", "system"])
def test_good_files_boot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_name: str
) -> None:
    configure(tmp_path, GUIDE_OTP)
    status, _, events = boot(capsys, monkeypatch, tmp_path, stage_name)
    assert status == cli.EXIT_OK
    assert not any(event["step"] == "config" for event in events)


def test_a_bad_file_is_not_the_fault_of_a_volume_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = broken(tmp_path, GUIDE_OTP)
    status, output, _ = boot(capsys, monkeypatch, tmp_path, "system", "data0")
    assert (status, said in output) == (cli.EXIT_OK, True)


@pytest.mark.parametrize(
    ("stage_name", "line", "words", "said"),
    [
        ("system", "auto_open = false", "", 'not opened by the system stage: its file does not say "auto_open = true"'),
        ("system", "auto_open = true", "cryptpilot=no", "not opened: the kernel command line says cryptpilot=no"),
        ("initrd", "auto_open = true\ninitrd = false", "", "not opened by the initrd stage: its file does not say "),
    ],
)
def test_a_volume_that_is_named_and_not_opened_is_no_success(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage_name: str,
    line: str,
    words: str,
    said: str,
) -> None:
    configure(tmp_path, GUIDE_OTP.replace("auto_open = true", line))
    status, output, _ = boot(capsys, monkeypatch, tmp_path, stage_name, "data0", words=words)
    assert status == cli.EXIT_FAILED
    assert f'cryptpilot: error: volume "data0" is {said}' in output
    assert "cryptpilot open data0" in output
    assert "opened in" not in output


@pytest.mark.parametrize("stage_name", ["initrd", "system"])
@pytest.mark.parametrize("file", ["/dev/full", "/dev/null/cryptpilot/events.jsonl"], ids=["full", "no directory"])
def test_an_event_log_that_cannot_be_written_keeps_no_volume_from_being_opened(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_name: str, file: str
) -> None:
    configure(tmp_path, GUIDE_OTP)
    (tmp_path / "events.jsonl").symlink_to(file)
    status, output, _ = boot(capsys, monkeypatch, tmp_path, stage_name)
    assert status == cli.EXIT_OK
    assert "data0: /dev/mapper/data0 opened in " in output
    assert output.count("the event log can no longer be written") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(("where", "times"), [("/var/log", 1), ("/data", 0)])
def test_a_volume_that_is_too_late_for_systemd_is_told_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, times: int
) -> None:
    configure(tmp_path, GUIDE_KMS)
    monkeypatch.setattr(keys, "prepare", lambda _: pytest.fail)
    monkeypatch.setattr(init, "fstab", lambda: f"/dev/mapper/data0 {where} ext4\n")
    status, output, _ = boot(capsys, monkeypatch, tmp_path, "system")
    assert status == cli.EXIT_OK
    assert output.count("data0: its mount is needed before the network is up") == times


def test_memory_is_locked_before_a_secret_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise CryptpilotError("locked it cannot be")

    def prepare(_: object) -> None:
        pytest.fail("a secret was asked for")

    configure(tmp_path, GUIDE_OTP)
    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(volume, "open_volume", lambda _, secret, **__: secret.next())
    monkeypatch.setattr(process, "lock_memory", refuse)
    assert run(capsys, "-c", str(tmp_path), "open", "data0")[0] == cli.EXIT_FAILED
    (data0,) = load(tmp_path).volumes
    (outcome,) = run_stage(Plan("system", (data0,), frozenset(), 5, verbose=False), lambda _: None)
    assert str(outcome.error) == "locked it cannot be"


def test_an_interruption_is_told_as_such(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    configure(tmp_path, GUIDE_OTP)
    monkeypatch.setattr(volume, "open_volume", interrupted)
    assert run(capsys, "-c", str(tmp_path), "open", "data0") == (130, "", "cryptpilot: interrupted\n")


def test_a_wrong_volume_gets_the_nearest_right_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP)
    status, _, err = run(capsys, "-c", str(tmp_path), "open", "dat0")
    assert status == cli.EXIT_USAGE
    assert 'no volume "dat0" is configured' in err
    assert 'did you mean "data0"?' in err


@pytest.mark.root
def test_a_failure_is_told_with_the_next_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP.replace("/dev/nvme1n1p1", "/dev/not-there"))
    status, _, err = run(capsys, "-c", str(tmp_path), "open", "data0")
    assert status == cli.EXIT_FAILED
    assert err.splitlines() == [
        "cryptpilot: error: data0: /dev/not-there: no such device",
        'cryptpilot:   check "dev" in the configuration against the output of lsblk',
    ]


def test_a_device_that_is_not_there_is_a_state_to_show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS.replace("/dev/nvme1n1p1", "/dev/not-there"))
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert (status, err) == (0, "")
    header, _, row = out.splitlines()
    assert header.split()[:2] == ["Volume", "Volume"]
    assert row.split()[:4] == ["data0", "/dev/mapper/data0", "/dev/not-there", "kms"]
    assert "device-not-found: /dev/not-there: no such block device" in row


def test_warnings_do_not_stop_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS)
    (tmp_path / "volumes" / "v0.toml").chmod(0o644)
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert status == 0
    assert "data0" in out
    assert "warning:" in err
    assert "holds a client key and can be read by others" in err


def test_what_the_image_needs_is_printed_for_a_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_KMS, settings="[boot]\n")
    status, out, _ = run(capsys, "-c", str(tmp_path), "initrd", "plan")
    lines = out.splitlines()
    assert status == 0
    assert lines[:2] == [f"config {tmp_path}/global.toml", f"config {tmp_path}/volumes/v0.toml"]
    assert "program cryptsetup" in lines
    assert "module dm_crypt" in lines
    assert "volume data0" in lines
    assert "device /dev/nvme1n1p1" in lines
    assert lines[-2:] == ["shell no", "network yes"]
    assert not [line for line in lines if line.startswith("authorities")]


def test_an_image_for_a_role_needs_the_cas_that_this_system_trusts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "ca-certificates.crt"
    monkeypatch.setattr("cryptpilot_boot.system.certificates.PLACES", (store,))
    configure(tmp_path, ROLE.replace("[encrypt", "auto_open = true\n[encrypt"))
    status, _, err = run(capsys, "-c", str(tmp_path), "initrd", "plan")
    assert status == cli.EXIT_FAILED
    assert "no CA bundle" in err
    assert "install the package ca-certificates, or set kms_cert_pem" in err
    store.write_text("")
    status, out, _ = run(capsys, "-c", str(tmp_path), "initrd", "plan")
    assert status == 0
    assert out.splitlines()[-2:] == [f"authorities {store}", "network yes"]


def test_a_bug_is_told_without_the_values_it_tripped_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(*_: Any, **__: Any) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(cli, "load", trip)
    status, out, err = run(capsys, "-c", str(tmp_path), "show")
    assert status == cli.EXIT_FAILED
    assert "hunter2" not in out + err
    assert "internal error: RuntimeError at _run:" in err


def test_no_core_is_dumped_and_nobody_else_looks_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "-c", str(tmp_path), "show")
    assert resource.getrlimit(resource.RLIMIT_CORE) == (1, 1)
    assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


PR_GET_DUMPABLE = 3  # <linux/prctl.h>


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["opne", "data0"], "did you mean open?"),
        (["show", "--jsn"], "unrecognized argument: --jsn; did you mean --json?"),
        (["config", "chek"], "did you mean check?"),
        (["init", "data1", "--force-init"], "did you mean --force-reinit?"),
        (["show", "--zzzzzz"], "unrecognized argument: --zzzzzz\n"),
    ],
)
def test_what_was_meant_is_guessed(capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (cli.EXIT_USAGE, "")
    assert said in err


@pytest.mark.parametrize(("argv", "wrong"), [(["opne"], "opne"), (["initrd", "pln"], "pln")])
def test_a_wrong_command_lists_no_hidden_one(capsys: pytest.CaptureFixture[str], argv: list[str], wrong: str) -> None:
    group = argv[:-1]
    err = run(capsys, *argv)[2]
    words = [row.words.split() for row in table.ROWS if row.words not in table.HIDDEN]
    listed = dict.fromkeys(one[len(group)] for one in words if one[: len(group)] == group)
    assert f"invalid choice: '{wrong}' (choose from {', '.join(listed)})" in err
    for hidden in ("boot-service", "generator", "plan", "record"):
        assert hidden not in err


@pytest.mark.parametrize("option", ["--force", "--over=ext4", "--y"])
def test_no_option_is_taken_for_another_that_begins_so(capsys: pytest.CaptureFixture[str], option: str) -> None:
    status, _, err = run(capsys, "init", "data1", option)
    assert status == cli.EXIT_USAGE
    assert f"unrecognized argument: {option}" in err


def test_names_that_are_too_long_are_no_bugs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP.replace("/dev/nvme1n1p1", "/dev/" + 300 * "x"))
    assert '"dev" is longer than a path may be' in run(capsys, "-c", str(tmp_path), "open", "data0")[2]
    assert "no such configuration directory" in run(capsys, "-c", f"/{300 * 'x'}", "show")[2]


@pytest.mark.parametrize("command", ["show", "show --json", "close data0", "config check --skip-check-passphrase"])
def test_a_full_disk_below_standard_output_is_told(tmp_path: Path, command: str) -> None:
    configure(tmp_path, GUIDE_OTP)
    line = [sys.executable, "-m", "cryptpilot_boot", "-c", str(tmp_path), *command.split()]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        # as the frozen command is: what could not be written is still there when the interpreter ends
        done = subprocess.run(
            line, stdout=full, stderr=subprocess.PIPE, env=buffered, check=False, text=True, timeout=60
        )
    assert done.returncode == cli.EXIT_FAILED
    assert done.stderr.splitlines() == [
        "cryptpilot: error: standard output cannot be written: No space left on device",
        "cryptpilot:   the output is incomplete; redirect it somewhere with room",
    ]


UNHEARD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from cryptpilot_boot import volume
from cryptpilot_boot.cli.main import run_and_exit
from cryptpilot_boot.errors import CryptpilotError

directory = Path(sys.argv[2])

def require(one, *_):
    if one.volume == "a":
        raise CryptpilotError("is initialized already")
    return SimpleNamespace(found=None)

def done(one, *_, **__):
    (directory / f"{one.volume}-done").touch()
    return volume.Opened(volume.Opening.CURRENT)

volume.require_formattable = require
volume.initialize = volume.open_volume = volume.close = done
run_and_exit()
"""


@pytest.mark.parametrize("outputs", ["> /dev/full", "> /dev/full 2>&1", "| true", "2>&1 | true", ">&- 2>&-"])
@pytest.mark.parametrize(("command", "done"), [("init --yes", "b c"), ("open", "a b c"), ("close", "a b c")])
def test_a_command_that_cannot_be_heard_finishes_its_volumes(
    tmp_path: Path, outputs: str, command: str, done: str
) -> None:
    (tmp_path / "volumes").mkdir()
    for name in "abc":
        text = f'volume = "{name}"\ndev = "/dev/{name}"\n[encrypt.exec]\ncommand = "/bin/cat"\n'
        (tmp_path / f"volumes/{name}.toml").write_text(text)
    line = ["bash", "-c", f'"$@" {outputs}; exit ${{PIPESTATUS[0]}}', "bash", sys.executable, "-c", UNHEARD]
    ended = subprocess.run([*line, "-c", tmp_path, *command.split(), *"abc"], timeout=60, check=False)
    assert {path.name for path in tmp_path.glob("*-done")} == {f"{name}-done" for name in done.split()}
    heard = outputs == ">&- 2>&-"  # /dev/null has it
    assert ended.returncode == (cli.EXIT_OK if heard and command != "init --yes" else cli.EXIT_FAILED)


def test_a_reader_that_has_gone_hears_no_complaint(tmp_path: Path) -> None:
    configure(tmp_path, GUIDE_OTP)
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "cryptpilot_boot", "-c", str(tmp_path), "show"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (cli.EXIT_FAILED, b"")


@pytest.mark.parametrize("closed", [True, False])
def test_a_volume_that_was_closed_is_so_whatever_systemd_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    def fail(unit: str) -> None:
        raise ProgramError(f"systemctl: {unit} is beyond me")

    warning = (
        "its unit was not stopped: systemctl: cryptpilot@data0.service is beyond me; until it is, systemd does not open"
        " the volume again; stop it: systemctl stop 'cryptpilot@data0.service'"
    )
    configure(tmp_path, GUIDE_OTP)
    monkeypatch.setattr(volume, "close", lambda _: closed)
    monkeypatch.setattr(volumes, "stop_unit", fail)
    assert run(capsys, "-c", str(tmp_path), "close", "data0") == (
        cli.EXIT_OK,
        f"data0: /dev/mapper/data0 {'is closed' if closed else 'was closed already'}\n",
        f"cryptpilot: warning: data0: {warning}\n",
    )


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_standard_stream_fails_no_command(tmp_path: Path, closed: str) -> None:
    """Nor may another file get its number, which a program that is run would take for its own stream."""
    configure(tmp_path, GUIDE_OTP)
    command = f"exec {sys.executable} -m cryptpilot_boot -c {tmp_path} close data0 {closed}"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == cli.EXIT_OK


def test_check_says_that_no_image_has_the_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "kernel_command_line", lambda: "root=/dev/mapper/data0 ro")
    warning = "the root file system is on this volume, but no initrd opens it"
    for setting, warned in (("true", False), ("false", True), ("true\ninitrd = false", True)):
        configure(tmp_path, GUIDE_OTP.replace("auto_open = true", f"auto_open = {setting}"))
        assert (warning in run(capsys, "-c", str(tmp_path), "config", "check")[1]) is warned, setting


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["bind", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_an_error_and_no_bug(arguments: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cryptpilot_boot", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=Path(cryptpilot_boot.__file__).parents[1],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "standard output cannot be written: No space left on device" in done.stderr
