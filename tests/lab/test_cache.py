"""The cache: made once, never seen half made, bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import cache

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTPILOT_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_in_use", {})


def names() -> list[str]:
    return sorted(path.name for path in cache.cache_directory().iterdir() if not path.name.startswith("."))


def forget_use() -> None:
    """Let go of what this process uses, as if it had ended."""
    for lock in cache._in_use.values():
        os.close(lock)
    cache._in_use.clear()


def other_process(statements: str) -> subprocess.Popen[str]:
    program = f"import time\nfrom tests.lab.cache import cached\n{statements}"
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=os.environ, stdout=subprocess.PIPE, text=True
    )


def test_is_made_once_for_a_key() -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("content")

    first = cache.cached("thing", ["a", "b"], make)
    assert cache.cached("thing", ["a", "b"], make) == first
    assert cache.cached("thing", ["ab"], make) != first
    assert first.read_text() == "content"
    assert len(made) == 2


def test_a_failed_maker_leaves_nothing() -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.cached("thing", ["a"], fail)
    assert names() == []
    assert cache.cached("thing", ["a"], lambda path: path.mkdir()).is_dir()


def test_a_killed_maker_leaves_nothing_that_looks_whole() -> None:
    maker = other_process("""
def make(path):
    path.mkdir()
    (path / "half").touch()
    print("half made", flush=True)
    time.sleep(60)
cached("thing", ["a"], make)
""")
    assert maker.stdout is not None
    assert maker.stdout.readline() == "half made\n"
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    assert names() == []
    made = cache.cached("thing", ["a"], lambda path: path.mkdir())
    assert list(made.iterdir()) == []


def test_two_processes_make_it_once() -> None:
    statements = """
def make(path):
    time.sleep(0.3)
    path.touch()
    print("made")
cached("thing", ["a"], make)
"""
    outputs = [maker.communicate()[0] for maker in [other_process(statements) for _ in range(3)]]
    assert sorted(outputs) == ["", "", "made\n"]


def test_old_ones_go_but_not_other_names_nor_what_is_in_use() -> None:
    user = other_process("""
cached("thing", ["used elsewhere"], lambda path: path.mkdir())
print("ready", flush=True)
time.sleep(60)
""")
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    used = set(names())
    os.utime(cache.cache_directory() / used.copy().pop(), (0, 0))
    cache.cached("thing-else", ["a"], lambda path: path.mkdir())
    used |= set(names())
    for number in range(6):
        forget_use()
        path = cache.cached("thing", [str(number)], lambda path: path.mkdir())
        os.utime(path, (time.time() - 100 + number,) * 2)
    assert used < set(names())
    assert len(names()) == len(used) + cache.KEEP

    user.kill()
    user.communicate()
    forget_use()
    cache.cached("thing", ["5"], lambda path: path.mkdir())
    assert len(names()) == 1 + cache.KEEP
    assert not list(cache.cache_directory().glob("*.making"))


def test_fingerprint_sees_content_names_and_modes(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    seen = {cache.fingerprint(directory)}
    (directory / "a").write_text("1")
    seen.add(cache.fingerprint(directory))
    (directory / "a").write_text("2")
    seen.add(cache.fingerprint(directory))
    (directory / "a").chmod(0o700)
    seen.add(cache.fingerprint(directory))
    (directory / "a").rename(directory / "b")
    seen.add(cache.fingerprint(directory))
    (directory / "c").symlink_to("b")
    seen.add(cache.fingerprint(directory))
    assert len(seen) == 6
    assert cache.fingerprint(directory) in seen
