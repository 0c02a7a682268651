"""What all tests share: one installed tree and one KMS instance, made once a run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import machines
from tests.lab import rows
from tests.lab.run import mean_default_signals

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

TESTS = Path(__file__).parent
UNIT = TESTS / "unit"
# Seconds after which a part of a test is ended, and has failed. None takes a third of that on a machine that is loaded.
CEILING_UNIT = 300
CEILING = 1800
# Where the product looks for programs, too; a user's own PATH may lack /usr/sbin.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
AGAIN = 30
"""Seconds until it is ended once more, if it was cleaning up and hung in that."""
LONGEST_FIRST = (
    *("boot/test_debian12.py", "boot/test_convert_uefi.py", "boot/test_stages.py", "boot/test_convert.py"),
    *("volumes/test_volumes.py", "volumes/test_commands.py", "boot/test_trouble.py", "volumes/test_wrong_disk.py"),
    *("volumes/test_integrity.py", "boot/test_root.py", "boot/test_guide.py", "boot/test_production.py"),
    *("volumes/test_telling.py", "boot/test_late.py", "volumes/test_integrity_power.py", "volumes/test_releases.py"),
    *("volumes/test_init_power.py", "boot/test_debian11.py", "boot/test_debian_testing.py", "volumes/test_adopt.py"),
    *("volumes/test_rotate.py", "volumes/test_recovery.py", "boot/test_debian13.py", "boot/test_prompt.py"),
    *("boot/test_image.py", "boot/test_kbs.py", "packages/test_packages.py", "volumes/test_resize.py"),
)
"""Files that take more than 100 s, longest first, as they were measured: of 730 s to 102 s. They are run before others.

Each is run by one process, so that one which begins late ends when the other process has been done for long.
"""


def pytest_configure() -> None:
    mean_default_signals()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deal-waits", action="store_true", help="spread what waits over all processes (tests/unit)")
    parser.addoption("--everything", action="store_true", help="skip nothing for want of root or of a program")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes longest first. Skip what needs root, or a program that is not here.

    With --everything that is not skipped, and fails by itself.
    """
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    if config.getoption("--everything"):
        return
    for item in items:
        names = [name for mark in item.iter_markers("needs") for name in mark.args]
        if missing := [name for name in names if not shutil.which(name, path=PATH)]:
            item.add_marker(pytest.mark.skip(f"not installed: {', '.join(missing)}"))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip("needs root"))


@contextlib.contextmanager
def ceiling(seconds: int) -> Iterator[None]:
    """Have what takes longer fail, wherever it waits: it ends the test, and not the run."""

    def end(*_: object) -> None:
        pytest.fail(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    with ceiling(CEILING):  # of fixtures, some are made once for many tests
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with ceiling(CEILING_UNIT if UNIT in item.path.parents else CEILING):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    with ceiling(CEILING):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the matrix, if some of it was run."""
    kinds = ("passed", "failed", "error", "skipped")
    # what could not be collected is an error, too, and no test
    reports = (report for kind in kinds for report in terminalreporter.getreports(kind))
    ended = [report for report in reports if isinstance(report, pytest.TestReport)]
    if found := rows.outcomes(ended):
        terminalreporter.section("matrix")
        for line in rows.table(found, rows.commit(machines.CHECKOUT)):
            terminalreporter.write_line(line)


# The machines are noisy: no example fails for the time it takes.
settings.register_profile("noisy", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=5)  # for `make check`
settings.load_profile("noisy")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> machines.Site:
    """A KMS instance with a secret in it."""
    return machines.make_site(tmp_path_factory.mktemp("site") / "kms")


@pytest.fixture(scope="session")
def tree(lab: None, tmp_path_factory: pytest.TempPathFactory, site: machines.Site) -> Path:  # noqa: ARG001
    """A Debian 12 tree with the product installed and a root volume configured."""
    tree = machines.installed_tree(tmp_path_factory.mktemp("tree") / "root")
    machines.configure(tree, {machines.ROOT: machines.volume_file(site)}, machines.settings())
    return tree
