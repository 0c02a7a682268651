"""Files in memory, and a directory to work in, are labelled for the program that uses them, only if it could not."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cryptpilot_boot.system import selinux
from cryptpilot_boot.system.run import run

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "/usr/sbin/program"
READ, WRITE, GETATTR, LOCK, OPEN, MAP = (1 << bit for bit in range(6))
ALL = READ | WRITE | GETATTR | LOCK | OPEN
LABELS = {PROGRAM: "program_exec", "/run": "run"}
FILE = "file-of-ours"
"""The label a file in memory has at first."""


@dataclass
class Policy:
    """A policy by which the agent starts PROGRAM as `domain`; access: what that may do, by label."""

    domain: str = "program"
    access: dict[str, int] = field(default_factory=lambda: {FILE: READ | WRITE, "file-of-its-own": ALL | MAP})
    labels: dict[str, str] = field(default_factory=lambda: LABELS)
    asked: list[str] = field(default_factory=list)
    labelled: list[tuple[int | Path, str, bytes]] = field(default_factory=list)

    def ask(self, question: str, source: str, target: str, kind: str) -> str:
        asked = (question, source, target, kind)
        if asked == ("create", "agent", "program_exec", "process"):
            return self.domain
        if asked == ("create", self.domain, "run", "file"):
            return "file-of-its-own"
        assert asked == ("access", self.domain, target, "file")
        return f"{self.access.get(target, 0):x} ffffffff 0 ffffffff 1 0"


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Policy:
    """A kernel with SELinux, as far as is looked at: what is written to one of its files is answered there."""
    policy = Policy()
    kinds = ("process", "file", "dir", "lnk_file")
    for number, kind in enumerate(kinds):
        (tmp_path / "class" / kind).mkdir(parents=True)
        (tmp_path / "class" / kind / "index").write_text(str(number))
    (tmp_path / "class/file/perms").mkdir()
    for number, name in enumerate(("read", "write", "getattr", "lock", "open", "map"), 1):
        (tmp_path / "class/file/perms" / name).write_text(str(number))
    for question in ("create", "access"):
        os.mkfifo(tmp_path / question)
    (tmp_path / "own").write_text("agent\0")
    write = os.write

    def answer(descriptor: int, data: bytes) -> int:
        question = Path(f"/proc/self/fd/{descriptor}").readlink()
        if question.parent != tmp_path:
            return write(descriptor, data)
        source, target, number = data.decode().split()
        policy.asked.append(question.name)
        return write(descriptor, policy.ask(question.name, source, target, kinds[int(number)]).encode() + b"\0")

    monkeypatch.setattr(selinux, "POLICY", tmp_path)
    monkeypatch.setattr(selinux, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "write", answer)
    monkeypatch.setattr(os, "getxattr", lambda file, _: policy.labels.get(str(file), FILE).encode() + b"\0")
    monkeypatch.setattr(os, "setxattr", lambda *call: policy.labelled.append(call))
    return policy


def test_a_file_that_the_program_could_not_open_gets_the_label_of_its_own_files(policy: Policy) -> None:
    selinux.share(PROGRAM, 7)
    assert policy.labelled == [(7, "security.selinux", b"file-of-its-own\0")]


@pytest.mark.parametrize("lacking", [READ, WRITE, GETATTR, LOCK, OPEN])
def test_every_right_counts(policy: Policy, lacking: int) -> None:
    policy.access[FILE] = ALL & ~lacking
    selinux.share(PROGRAM, 7)
    assert len(policy.labelled) == 1


def test_a_file_that_the_program_may_open_stays_as_it_is(policy: Policy) -> None:
    policy.access[FILE] = ALL
    selinux.share(PROGRAM, 7)
    assert policy.labelled == []


def test_a_label_that_is_no_better_is_not_given(policy: Policy) -> None:
    policy.access["file-of-its-own"] = ALL & ~LOCK
    selinux.share(PROGRAM, 7)
    assert policy.labelled == []


def test_a_process_that_may_not_ask_goes_on(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(policy, "ask", refuse)
    selinux.share(PROGRAM, 7)
    assert policy.asked == ["create"]
    assert policy.labelled == []


def test_without_selinux_nothing_is_asked(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "create").unlink()
    selinux.share(PROGRAM, 7)
    assert (policy.asked, policy.labelled) == ([], [])


WORK, MODEL = Path("/work"), Path("/model")


@dataclass
class Places:
    """A policy by which PROGRAM may work in MODEL; access: what it may there and elsewhere, by label and class."""

    access: dict[tuple[str, str], int]

    def ask(self, question: str, source: str, target: str, kind: str) -> str:
        if (question, kind) == ("create", "process"):
            assert (source, target) == ("agent", "program_exec")
            return "program"
        if question == "create":  # what is made in a directory has its label
            assert source == "agent"
            return target
        assert (question, source) == ("access", "program")
        return f"{self.access.get((target, kind), 0):x} ffffffff 0 ffffffff 1 0"


def shared(policy: Policy, monkeypatch: pytest.MonkeyPatch, access: dict[tuple[str, str], int]) -> list[bytes]:
    """Share WORK, whose label is "work", as MODEL, whose label is "model"; return the labels it got."""
    places = Places(access)
    monkeypatch.setattr(policy, "ask", places.ask)
    policy.labels = {PROGRAM: "program_exec", str(WORK): "work", str(MODEL): "model"}
    selinux.share_directory(PROGRAM, WORK, MODEL)
    assert all(call[:2] == (WORK, "security.selinux") for call in policy.labelled)
    return [call[2] for call in policy.labelled]


@pytest.mark.parametrize("kind", ["dir", "file", "lnk_file"])
def test_a_directory_in_which_a_program_could_not_work_gets_a_label(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    access = {(label, one): ALL for label in ("work", "model") for one in ("dir", "file", "lnk_file")}
    assert shared(policy, monkeypatch, {**access, ("work", kind): ALL & ~WRITE}) == [b"model\0"]


@pytest.mark.parametrize("more", [0, MAP])
def test_a_directory_in_which_a_program_may_work_stays_as_it_is(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    access = {("model", "file"): ALL, ("work", "file"): ALL | more}
    assert shared(policy, monkeypatch, access) == []


def test_a_directory_stays_as_it_is_where_nothing_can_be_asked(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(*_: object) -> bytes:
        read.append("a label")
        raise OSError(errno.ENODATA, "No data available")

    read: list[str] = []
    monkeypatch.setattr(os, "getxattr", none)
    selinux.share_directory("", WORK, MODEL)
    (tmp_path / "create").unlink()
    selinux.share_directory(PROGRAM, WORK, MODEL)
    assert (read, policy.asked, policy.labelled) == (["a label"], [], [])


def test_each_descriptor_that_a_program_inherits_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[tuple[str, int]] = []
    monkeypatch.setattr(selinux, "share", lambda *call: shared.append(call))
    read, write = os.pipe()
    try:
        run(["true"], pass_fds=[read, write])
    finally:
        os.close(read)
        os.close(write)
    assert [(Path(program).name, descriptor) for program, descriptor in shared] == [("true", read), ("true", write)]


def test_no_unit_keeps_a_program_in_the_domain_of_who_starts_it() -> None:
    """With no_new_privs the policy would have to allow each change of domain once more: of the agent, of cryptsetup."""
    units = [*ROOT.glob("systemd/*.service"), *ROOT.glob("initrd_hooks/*.service")]
    assert len(units) > 2
    for unit in units:
        names = {line.partition("=")[0] for line in unit.read_text().splitlines()}
        assert not names & {"NoNewPrivileges", "DynamicUser", "User", "SELinuxContext"}, unit
