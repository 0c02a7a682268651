"""Files, names, limits and machines as they are found: an error says what is wrong, and nothing is left or lost."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.commands import convert
from cryptpilot_boot.config import Boot, Config
from cryptpilot_boot.convert import look, payload, tools
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.system import (
    clone,
    disk_image,
    drafts,
    fat,
    loop,
    mapper,
    partition_table,
    programs,
)
from cryptpilot_boot.system.run import MORTAL, run
from tests.unit.test_convert_plan import KMS

if TYPE_CHECKING:
    from collections.abc import Iterator

Begin = Callable[[Path, Path], object]
CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = [
    *(b"-rf", b"two words", b"new\nline", b"quo\"te'", b"back\\slash", b"50%,format=raw:x", b"json:{}", b"\xff\xfe"),
    *("ä".encode(), b"ends in 7"),
]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"new\nline", "new line"),
        (b"\x1b[31mred\rover\x07", " [31mred over "),
        (b"\xff\xfe", "\\udcff\\udcfe"),
        ("\u202eä".encode(), " ä"),
    ],
)
def test_a_name_does_nothing_to_the_terminal_that_shows_it(tmp_path: Path, name: bytes, shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cryptpilot_boot", "image", "measure", os.fsencode(tmp_path) + b"/" + name],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    first = f"cryptpilot: error: {tmp_path}/{shown}: cannot be read: No such file or directory"
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, first)


@pytest.mark.parametrize(
    "command",
    [
        "image measure in",
        "convert in out --volume root",
        "convert /in /out --volume root --package file",
        "header backup root file",
        "header restore root file",
    ],
)
def test_a_current_directory_that_is_gone_is_no_bug(tmp_path: Path, command: str) -> None:
    product = [sys.executable, "-m", "cryptpilot_boot", "--config-dir", str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', "sh", *product, *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.match("cryptpilot: error: (in|file): the current directory does not exist\n", done.stderr)


@pytest.fixture(params=NAMES, ids=ascii)
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A raw image with a partition, under a name that few programs like."""
    path = tmp_path / os.fsdecode(request.param)
    path.write_bytes(bytes(4 << 20))
    run(["sfdisk", "--quiet", str(path)], stdin=memoryview(b"label: gpt\nstart=2048, size=2048\n"))
    with path.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"content")
    return path


@pytest.mark.needs("qemu-img")
def test_an_image_is_read_whatever_its_name(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And packed under such a name."""
    part, packed = named.parent / "part", named.with_name(f"{named.name}.qcow2")
    disk_image.require_file(named)
    found = disk_image.facts(named)
    assert (found.format, found.size) == ("raw", 4 << 20)
    disk_image.extract(named, "raw", 1 << 20, 512, part)
    assert part.read_bytes()[:7] == b"content"
    with drafts.opened(packed, "qcow2") as draft:
        disk_image.convert(named, "raw", draft.reach, "qcow2")
        drafts.finish(draft, packed)
    disk_image.extract(packed, disk_image.facts(packed).format, 1 << 20, 512, part)
    assert part.read_bytes()[:7] == b"content"

    def attached(*_: object, **__: object) -> Iterator[str]:
        raise DeviceError("far enough")

    monkeypatch.setattr(loop, "attached", attached)
    monkeypatch.setattr(partition_table, "read", lambda path, real=partition_table.read: tables.append(real(path)))
    tables: list[partition_table.Table] = []
    with pytest.raises(CryptpilotError), look.opened(named, str(named), "root-source"):
        pytest.fail("it was to end earlier")
    assert [one.number for one in tables[0].partitions] == [1]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begin a conversion, whose paths are looked at first."""

    def nothing_more() -> None:
        raise CryptpilotError("far enough")

    monkeypatch.setattr(payload, "require_installed", nothing_more)
    config = Config(tmp_path, Boot(), (dataclasses.replace(KMS, auto_open=True),))
    options = convert.Options("root")
    return lambda source, target: convert.convert(config, source, target, options, lambda _: None, lambda _: None)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (".out.image.cryptpilot-new", "out", "has the name of a file that a conversion writes"),
        (".out.source.cryptpilot-new.lock", "out", "has the name of a file that a conversion writes"),
        ("alias", "other", "has the name of a file that a conversion writes"),
        ("in", ".out.image.cryptpilot-new", "has the name of a file that a conversion writes"),
        ("nothing", "out", "cannot be read: No such file"),
        (".", "out", "is not a regular file"),
        ("in", "in", "is there already"),
        ("in", "link", "is there already"),
        ("in", "nowhere/out", "no such directory"),
    ],
)
def test_paths_that_cannot_be_are_refused(tmp_path: Path, begin: Begin, source: str, target: str, reason: str) -> None:
    for name in ("in", ".out.image.cryptpilot-new", ".out.source.cryptpilot-new.lock"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "alias").symlink_to(".out.image.cryptpilot-new")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(CryptpilotError, match=reason):
        begin(tmp_path / source, tmp_path / target)


def test_a_link_to_itself_is_no_name_for_an_image(tmp_path: Path, begin: Begin) -> None:
    (tmp_path / "in").write_bytes(b"")
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(CryptpilotError, match="out is there already"):
        begin(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "is not a regular file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
        (Path.exists, "cannot be read: No such file or directory"),
    ],
    ids=["directory", "pipe", "device", "loop", "nothing"],
)
def test_what_is_no_image_file_is_refused(tmp_path: Path, make: object, reason: str) -> None:
    assert callable(make)
    make(tmp_path / "in")
    with pytest.raises(CryptpilotError, match=reason):
        disk_image.require_file(tmp_path / "in")


def test_a_name_that_is_too_long_is_refused_and_is_no_bug(tmp_path: Path, begin: Begin) -> None:
    """Nor is one that is only too long while the image is written."""
    source = tmp_path / "in"
    source.write_bytes(b"")
    with pytest.raises(CryptpilotError, match="File name too long"):
        disk_image.require_file(tmp_path / ("a" * 300))
    for length, excess in ((300, 73), (228, 1)):
        with pytest.raises(CryptpilotError, match=f"the name is {excess} bytes too long"):
            begin(source, tmp_path / ("a" * length))
    with pytest.raises(CryptpilotError, match="far enough"):
        begin(source, tmp_path / ("a" * 227))
    with drafts.opened(tmp_path / ("a" * 227), "source"):
        pass


def test_what_was_left_beside_an_image_that_is_whole_is_removed(tmp_path: Path, begin: Begin) -> None:
    """By a process that was killed between giving the image its name and taking the other one away."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"")
    draft = tmp_path / ".out.image.cryptpilot-new"
    target.write_text("whole")
    os.link(target, draft)
    with pytest.raises(CryptpilotError, match="out is there already"):
        begin(source, target)
    assert target.read_text() == "whole"
    assert not draft.exists()


def limited(code: str, size: int, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run code where no file may have more than so many bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        preexec_fn=limit,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


RESIZE = """
import sys
from pathlib import Path
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import drafts
with drafts.opened(Path(sys.argv[1], "out"), "image") as draft:
    drafts.resize(draft, 1 << 20)
    try:
        drafts.resize(draft, 1 << 30)
    except CryptpilotError as error:
        print(error.what, error.hint, sep="; ")
"""


def test_a_file_that_may_not_be_so_large_is_an_error_before_anything_is_copied(tmp_path: Path) -> None:
    """As by ulimit -f, or on FAT."""
    done = limited(RESIZE, 2 << 20, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}: no file of 1 GiB can be written there: File too large; raise the limit")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("cryptsetup", "dmsetup", "qemu-img", "sfdisk")
def test_all_programs_that_are_missing_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require()
    for program, package in tools.NEEDED.items():
        monkeypatch.setattr(programs, "is_there", lambda name, gone=program: name != gone)
        with pytest.raises(CryptpilotError, match=f"programs are missing: {program}$") as refusal:
            tools.require()
        assert refusal.value.hint.endswith(package)
    monkeypatch.setattr(programs, "is_there", lambda name: name not in ("sfdisk", "qemu-img"))
    with pytest.raises(CryptpilotError, match="programs are missing: qemu-img, sfdisk") as refusal:
        tools.require()
    assert refusal.value.hint.endswith(": fdisk qemu-utils")


@pytest.mark.parametrize("gone", ["mkfs.ext4", "e2fsck", "dumpe2fs"])
def test_a_boot_of_its_own_takes_programs_that_the_root_may_not(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """That of an image whose root is xfs."""
    for module in (programs, clone):
        monkeypatch.setattr(module, "is_there", lambda name: name != gone)
    with pytest.raises(CryptpilotError, match=f"programs are missing: {gone}"):
        tools.require_for_boot("ext4", new=True)
    if gone == "mkfs.ext4":
        tools.require_for_boot("ext4", new=False)


def test_no_program_is_run_that_is_not_asked_for_beforehand() -> None:
    """Of those that every image takes; those of its file systems are, too."""
    known = {*tools.NEEDED, "modprobe"}
    for module in ("clone", "disk_image", "foreign_root", "foreign_tools", "mounts", "partition_table"):
        path = CHECKOUT / f"cryptpilot_boot/system/{module}.py"
        found = {
            str(first.value)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run" and node.args
            for first in ast.walk(node.args[0])
            if isinstance(first, ast.Constant) and re.fullmatch("[a-z][a-z-]+", str(first.value))
        }
        assert found & known
        words = {"convert", "info", "loop"}  # of their command lines
        assert found - known - words == set(), module


def test_a_kernel_without_device_mapper_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapper, "CONTROL", tmp_path / "control")
    monkeypatch.setattr(mapper, "run", lambda argv: run(["sh", "-c", "echo Module not found >&2; exit 1", *argv]))
    with pytest.raises(CryptpilotError, match="this machine's kernel has no device-mapper: sh: Module not found"):
        mapper.require()
    monkeypatch.setattr(mapper, "run", lambda _: None)
    mapper.require()  # it is a module, and cryptsetup makes the node
    (tmp_path / "control").write_bytes(b"")
    monkeypatch.setattr(mapper, "run", lambda _: pytest.fail("it is there"))
    mapper.require()


def test_an_error_names_the_program_that_failed() -> None:
    """And not the one by which it ends with this process."""
    with pytest.raises(ProgramError, match=r"^sh: oh \(exit status 3\)$"):
        run([*MORTAL, "sh", "-c", "echo oh >&2; exit 3"])
    with pytest.raises(ProgramError, match=r"^no-such-program: program not found"):
        run([*MORTAL, "no-such-program"])
    with pytest.raises(ProgramError, match=r"^sh: oh \(exit status 3\)$"):
        run([*MORTAL, "sh", "-c", "echo sh: oh >&2; exit 3"])
    with pytest.raises(ProgramError, match=r"^dracut in the image: oh"):
        run(["sh", "-c", "echo oh >&2; exit 3"], name="dracut in the image")


@pytest.mark.needs("qemu-img", "mcopy")
def test_an_efi_system_partition_without_a_file_system_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "esp").write_bytes(bytes(1 << 20))
    with pytest.raises(CryptpilotError, match="the EFI system partition has no file system that mtools can read"):
        fat.files(tmp_path / "esp")


def test_a_program_that_is_ended_by_a_limit_is_said_to_be(tmp_path: Path) -> None:
    code = (
        "import sys; from cryptpilot_boot.system.run import run; from cryptpilot_boot.errors import ProgramError\n"
        "try:\n    run(['dd', 'if=/dev/zero', f'of={sys.argv[1]}/x', 'bs=1M', 'count=8', 'status=none'])\n"
        "except ProgramError as error:\n    print(error.what)"
    )
    said = limited(code, 1 << 20, tmp_path).stdout
    assert f"killed by signal {signal.SIGXFSZ.value}" in said or "File too large" in said
