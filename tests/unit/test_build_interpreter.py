"""The interpreter that is frozen: its sources, and that it is compiled once."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path

import pytest

from buildlib import compiler, elf, interpreter, sources
from buildlib.base import BuildError

SHOWN = """\
Package: python3.13
Version: 3.13.5-2+deb13u5
Checksums-Sha256:
 93e583f2 22856016 python3.13_3.13.5.orig.tar.xz
 da6e013d 963 python3.13_3.13.5.orig.tar.xz.asc

Package: python3.13
Version: 3.13.15-1
Checksums-Sha256:
 1e66a794 23160540 python3.13_3.13.15.orig.tar.xz
"""
SOURCE = dataclasses.replace(sources.LIBFFI, file="x.tar.gz", sha256=hashlib.sha256(b"x").hexdigest())


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where source archives are kept."""
    monkeypatch.setenv("CRYPTPILOT_CACHE", str(tmp_path))
    return sources.directory()


def test_the_version_is_the_one_that_has_the_archive() -> None:
    assert sources.version_with(SHOWN, "1e66a794") == "3.13.15-1"
    assert sources.version_with(SHOWN, "93e583f2") == "3.13.5-2+deb13u5"
    assert sources.version_with(SHOWN, "00000000") == ""


def test_other_releases_are_where_this_one_is() -> None:
    targets = "https://example.org/more nodistro\nhttp://mirror.invalid/debian/ bookworm\nhttp://x.invalid/ trixie\n"
    assert sources.archive(targets) == "http://mirror.invalid/debian/"
    with pytest.raises(BuildError) as caught:
        sources.archive("https://example.org/more nodistro\nhttp://x.invalid/security bookworm-security\n")
    assert "source archives into" in caught.value.hint


def test_what_is_there_is_not_fetched(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    (kept / "x.tar.gz").write_bytes(b"x")
    assert sources.fetched([SOURCE]) == [kept / "x.tar.gz"]


@pytest.mark.parametrize("content", [None, b"", b"y"])
def test_what_is_missing_or_damaged_is_named_where_nothing_fetches_it(
    kept: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    if content is not None:
        (kept / "x.tar.gz").write_bytes(content)
    with pytest.raises(BuildError) as caught:
        sources.fetched([SOURCE])
    assert "libffi 3.4.8" in caught.value.what
    assert f"{SOURCE.sha256}  x.tar.gz" in caught.value.hint
    assert str(kept) in caught.value.hint


@pytest.fixture
def apt(kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for apt, which delivers the content "x" unless the list gets another; check how it is called."""
    delivered = ["x"]

    def run(argv: list[str], **rest: object) -> str:
        if argv[1] == "indextargets":
            return "http://mirror.invalid/debian bookworm\n"
        env = rest["env"]
        assert isinstance(env, dict)
        settings = Path(env["APT_CONFIG"]).read_text()
        # nothing of this machine's apt is read or written
        for line in settings.splitlines():
            assert not line.startswith("Dir::") or str(kept) in line or line.endswith('"-";')
        listed = (Path(env["APT_CONFIG"]).parent / "sources.list").read_text()
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        assert listed == f"deb-src [signed-by={keyring}] http://mirror.invalid/debian trixie main\n"
        if argv[0] == "apt-cache":
            return f"Version: 1-1\n {SOURCE.sha256} 1 x.tar.gz\n"
        if argv[1] == "source":
            assert argv[-1] == "libffi=1-1"
            Path(str(rest["cwd"]), "x.tar.gz").write_text(delivered[-1])
        return ""

    monkeypatch.setattr(sources, "run", run)
    monkeypatch.setattr("buildlib.sources.shutil.which", lambda name: f"/usr/bin/{name}")
    return delivered


def test_what_is_missing_is_fetched_and_kept(kept: Path, apt: list[str]) -> None:
    assert sources.fetched([SOURCE]) == [kept / "x.tar.gz"]
    assert [path.name for path in kept.iterdir()] == ["x.tar.gz"]
    apt.append("not asked for again")
    assert (kept / "x.tar.gz").read_text() == "x"
    assert sources.fetched([SOURCE]) == [kept / "x.tar.gz"]


def test_an_archive_with_another_content_is_not_kept(kept: Path, apt: list[str]) -> None:
    apt.append("y")
    with pytest.raises(BuildError, match="does not have the SHA-256"):
        sources.fetched([SOURCE])
    assert list(kept.iterdir()) == []


def test_an_archive_that_debian_has_no_more_is_an_error_with_a_next_step(
    kept: Path, apt: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apt
    monkeypatch.setattr(sources, "version_with", lambda *_: "")
    with pytest.raises(BuildError, match=r"trixie has no x\.tar\.gz") as caught:
        sources.fetched([SOURCE])
    assert f"put these files into {kept}" in caught.value.hint


@pytest.fixture
def source(kept: Path, monkeypatch: pytest.MonkeyPatch) -> sources.Source:
    """An archive that is there; what is compiled of it needs no compiler."""
    with tarfile.open(kept / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x/README"))
    monkeypatch.setattr(compiler, "environment", lambda _: {})
    return dataclasses.replace(SOURCE, sha256=hashlib.sha256((kept / "x.tar.gz").read_bytes()).hexdigest())


def test_what_was_compiled_is_kept(kept: Path, source: sources.Source) -> None:
    made: list[Path] = []

    def make(work: Path, _: object) -> Path:
        assert (work / "x/README").is_file()
        made.append(work)
        (work / "out").mkdir()
        return work / "out"

    def place(key: str) -> Path:
        return compiler.compiled("thing", key * 16, [source], make)

    places = [place("a"), place("a"), place("b"), place("c")]
    assert places[0] == places[1]
    assert len(made) == 3
    assert [path.exists() for path in places] == [False, False, True, True]
    assert not [path for path in made if path.exists()]
    assert places[2].parent == kept.parent


def test_what_was_cut_short_is_not_kept(kept: Path, source: sources.Source) -> None:
    made: list[Path] = []

    def fail(work: Path, _: object) -> Path:
        made.append(work)
        raise BuildError("the compiler failed")

    leftover = kept.parent / "compiling-thing-0"
    leftover.mkdir()
    with pytest.raises(BuildError, match="the compiler failed"):
        compiler.compiled("thing", "a" * 16, [source], fail)
    assert not list(kept.parent.glob("thing-*/"))
    assert not leftover.exists()
    assert not made[0].exists()


def test_another_floor_or_machine_is_another_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {interpreter.key()}
    monkeypatch.setitem(elf.FLOOR, "GLIBC", "2.17")
    keys.add(interpreter.key())
    monkeypatch.setattr("buildlib.compiler.platform.machine", lambda: "aarch64")
    keys.add(interpreter.key())
    assert len(keys) == 3
    monkeypatch.setattr("buildlib.compiler.platform.machine", lambda: "sparc64")
    with pytest.raises(BuildError, match="sparc64"):
        interpreter.key()


def test_modules_that_are_parts_of_the_library() -> None:
    listed = (
        "*shared*\n# @MODULE_A_TRUE@no\n@MODULE_ARRAY_TRUE@array arraymodule.c\n@MODULE_ZLIB_TRUE@zlib zlibmodule.c\n"
    )
    assert interpreter.built_in(listed, ["zlib"]) == "*static*\nzlib zlibmodule.c\n"
    with pytest.raises(BuildError, match="_bisect"):
        interpreter.built_in(listed, ["zlib", "_bisect"])
