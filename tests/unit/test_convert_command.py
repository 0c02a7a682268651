"""Converting as a whole, without what needs root: what is left, and what is said, when something comes in between."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.commands import convert
from cryptpilot_boot.config import Boot, Config
from cryptpilot_boot.convert import build, look, payload, plan, tools
from cryptpilot_boot.errors import CryptpilotError, Interrupted, ProgramError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import disk_image, drafts, lock, mapper, mounts, process, workplace
from tests.unit.test_convert_plan import FOUND, KMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.convert.facts import InstalledDisk
    from cryptpilot_boot.system.drafts import Draft

SECRET = os.urandom(256)


@dataclasses.dataclass
class Bench:
    """Converts. events: what was done, in order; at_work, at_show: what comes in between then."""

    directory: Path
    events: list[str] = dataclasses.field(default_factory=list)
    at_work: Callable[[], object] = bool
    at_show: Callable[[], object] = bool
    name: str = "out.img"
    key: Passphrase = dataclasses.field(default_factory=lambda: Passphrase(b"recovery", strong=True))

    @property
    def source(self) -> Path:
        return self.directory / "in.img"

    @property
    def target(self) -> Path:
        return self.directory / self.name

    def run(self, *, secret: Path | None = None, recovery_key: bool = False, dry_run: bool = False) -> bool:
        options = convert.Options("root", secret, recovery_key=recovery_key, dry_run=dry_run)
        config = Config(self.directory, Boot(), (dataclasses.replace(KMS, auto_open=True),))
        return convert.convert(config, self.source, self.target, options, lambda _: None, self.show)

    def show(self, key: Passphrase) -> None:
        self.events.append(f"shown {bytes(key.reveal()).decode()} beside {' '.join(self.left)}")
        self.at_show()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    made.source.write_bytes(b"ordinary")
    (tmp_path / "secret").write_bytes(base64.b64encode(SECRET))
    opened = SimpleNamespace(roles=plan.roles(FOUND.table, FOUND.contents))

    @contextlib.contextmanager
    def within(name: str) -> Iterator[Path]:
        made.events.append(f"begin {name}")
        try:
            yield tmp_path
        finally:
            made.events.append(f"end {name}")

    def found(*_: object) -> InstalledDisk:
        made.events.append("look")
        return FOUND

    def write(_: object, __: object, ___: object, draft: Draft, ask: Callable[[], Passphrase], ____: Path) -> None:
        with ask() as passphrase:
            assert bytes(passphrase.reveal()) == SECRET
        os.write(draft.descriptor, b"converted")
        made.at_work()
        made.events.append("built")

    def enroll(_: object, __: Draft, ask: Callable[[], Passphrase]) -> Passphrase:
        with ask() as passphrase:
            assert bytes(passphrase.reveal()) == SECRET
        made.events.append("enrolled")
        return made.key

    def asked(*_: object) -> Passphrase:
        made.events.append("asked")
        return Passphrase(SECRET, strong=True)

    def nothing(*_: object) -> None:
        pass

    for module, name, replacement in (
        (payload, "require_installed", nothing),
        (tools, "require", nothing),
        (mapper, "require", nothing),
        (process, "lock_memory", nothing),
        (mounts, "keep_private", nothing),
        (lock, "held", lambda _: within("lock")),
        (convert, "directory_to_mount_in", lambda: within("workplace")),
        (look, "opened", lambda *_: contextlib.nullcontext(opened)),
        (look, "found", found),
        (build, "close_leftover", lambda _: made.events.append("sweep")),
        (build, "build", write),
        (build, "enroll", enroll),
        (keys, "prepare", lambda _: None),
        (keys.shared, "ask_until", asked),
        (workplace, "room", lambda _: 1 << 40),
    ):
        monkeypatch.setattr(module, name, replacement)
    return made


@pytest.mark.needs("qemu-img")
def test_an_image_is_there_in_the_end_and_nothing_else(bench: Bench) -> None:
    assert bench.run(recovery_key=True)
    assert bench.target.read_bytes() == b"converted"
    assert bench.left == ["in.img", "out.img", "secret"]
    assert bench.events.count("asked") == 1
    shown = "shown recovery beside .out.img.image.cryptpilot-new .out.img.image.cryptpilot-new.lock in.img secret"
    assert bench.events[-4:] == ["sweep", "end lock", "enrolled", shown]
    assert not any(bench.key.reveal())


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("name", ["out.img", "out.qcow2", "out.vhd"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(errno.EPIPE, "Broken pipe")], ids=str
)
def test_no_image_is_there_whose_recovery_key_was_not_printed(bench: Bench, failure: OSError, name: str) -> None:
    def refuse() -> None:
        raise failure

    bench.name, bench.at_show = name, refuse
    with pytest.raises(CryptpilotError, match=f"{name} was not kept: its recovery key could not be printed: "):
        bench.run(recovery_key=True)
    assert bench.left == ["in.img", "secret"]
    assert not any(bench.key.reveal())


@pytest.mark.needs("qemu-img")
def test_a_recovery_key_is_printed_once_the_image_is_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails before that has printed nothing."""

    def fail(*_: object) -> None:
        raise CryptpilotError("qemu-img: No space left on device")

    monkeypatch.setattr(disk_image, "convert", fail)
    bench.name = "out.qcow2"
    with pytest.raises(CryptpilotError, match="No space left"):
        bench.run(recovery_key=True)
    assert bench.events[-1] == "enrolled"
    assert bench.left == ["in.img", "secret"]
    assert not any(bench.key.reveal())


@pytest.mark.needs("qemu-img")
def test_an_interruption_leaves_nothing_wherever_it_comes(bench: Bench) -> None:
    """What closes a mapping may not have been told of it yet: all of that name is closed, once it is unmounted."""

    def interrupt() -> None:
        raise interruption

    bench.at_work = interrupt
    for interruption in (KeyboardInterrupt(), Interrupted()):
        bench.events.clear()
        with pytest.raises(type(interruption)):
            bench.run()
        assert bench.left == ["in.img", "secret"]
        assert bench.events[-3:] == ["end workplace", "sweep", "end lock"]


@pytest.mark.needs("qemu-img")
def test_an_image_that_is_written_to_meanwhile_is_not_converted(bench: Bench) -> None:
    bench.at_work = lambda: bench.source.open("ab").write(b"more")
    with pytest.raises(CryptpilotError, match=r"in\.img was changed during the conversion"):
        bench.run()
    assert bench.left == ["in.img", "secret"]


@pytest.mark.needs("qemu-img")
def test_a_name_that_was_taken_meanwhile_is_left_to_its_file(bench: Bench) -> None:
    bench.at_work = lambda: bench.target.write_text("of somebody else")
    with pytest.raises(CryptpilotError, match="is there already"):
        bench.run()
    assert bench.target.read_text() == "of somebody else"
    assert bench.left == ["in.img", "out.img", "secret"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_secret_that_is_none_is_refused_before_anything_is_done(bench: Bench, dry_run: bool) -> None:
    (bench.directory / "secret").write_text("no base64!")
    with pytest.raises(CryptpilotError, match="is not base64"):
        bench.run(secret=bench.directory / "secret", dry_run=dry_run)
    assert bench.events == []


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    ("name", "times"), [("out.img", 1), ("out.qcow2", 2), ("OUT.QCOW2", 2), ("out.vhd", 2)], ids=str
)
def test_room_is_needed_twice_for_a_format_that_is_packed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    planned = plan.make(FOUND, KMS, plan.roles(FOUND.table, FOUND.contents))
    assert planned.size % (1 << 20) == 0  # as clouds want it of a VHD
    bench.name = name
    monkeypatch.setattr(workplace, "room", lambda _: times * planned.used - 1)
    with pytest.raises(CryptpilotError, match="are needed"):
        bench.run()
    assert "built" not in bench.events
    monkeypatch.setattr(workplace, "room", lambda _: times * planned.used)
    assert bench.run()


@pytest.mark.needs("qemu-img")
def test_an_image_that_is_unpacked_needs_room_for_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = bench.directory / "raw"
    raw.write_bytes(os.urandom(4 << 20))
    disk_image.convert(raw, "raw", bench.source, "qcow2")
    monkeypatch.setattr(workplace, "room", lambda _: 3 << 20)
    monkeypatch.setattr(drafts, "opened", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(CryptpilotError, match=r"has 3 MiB left, and .* are needed"):
        bench.run()


@pytest.mark.needs("qemu-img")
def test_a_refusal_is_not_taken_for_a_disk_that_is_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was written by then."""

    def refuse(*_: object) -> None:
        raise CryptpilotError("cannot be converted: it has no kernel")

    monkeypatch.setattr(look, "found", refuse)
    monkeypatch.setattr(workplace, "room", lambda _: 4096)
    with pytest.raises(CryptpilotError, match=r"^cannot be converted: it has no kernel$"):
        bench.run()


@pytest.mark.needs("qemu-img")
def test_what_fills_a_disk_is_said_to_have_done_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException, room: int) -> None:
        def at_work() -> None:
            monkeypatch.setattr(workplace, "room", lambda _: room)
            raise error

        monkeypatch.setattr(workplace, "room", lambda _: 1 << 40)
        bench.at_work = at_work
        bench.run()

    for error in (ProgramError("e2image: Input/output error"), OSError(errno.EIO, "Input/output error")):
        # what failed stands there too
        full = f"{bench.directory} became full while the image was written: .*Input/output error"
        with pytest.raises(CryptpilotError, match=full):
            fail(error, 4096)
        with pytest.raises(CryptpilotError, match=r"^(?!.*became full).*Input/output error"):
            fail(error, 1 << 30)
    for other in (Interrupted(), BrokenPipeError(errno.EPIPE, "Broken pipe")):
        with pytest.raises(type(other)):
            fail(other, 4096)


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "make room there"), (errno.EROFS, "write the image elsewhere"), (errno.EIO, "kernel's log")],
)
def test_what_the_kernel_refuses_is_said_with_what_to_do(bench: Bench, number: int, hint: str) -> None:
    """A small /run fills up as well as the place of the image."""

    def refuse() -> None:
        raise OSError(number, os.strerror(number), "/run/cryptpilot/convert")

    bench.at_work = refuse
    with pytest.raises(CryptpilotError) as refusal:
        bench.run()
    assert refusal.value.what == f"/run/cryptpilot/convert: {os.strerror(number)}"
    assert hint in refusal.value.hint
