"""The platform from Debian 11 to Debian testing: each release's own systemd, dracut and programs know what we use.

tests/unit/test_platform.py holds the same against the oldest, which cannot be had here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.tree import RELEASES, SHARE, TESTING, in_chroot, root_tree
from tests.unit import oldest
from tests.unit.test_platform import generated_files, unit_files

if TYPE_CHECKING:
    from pathlib import Path

ALL = [*RELEASES, TESTING]
HELP = {
    "blkid": "blkid --help",
    "cryptsetup": "cryptsetup --help",
    "dmsetup": "dmsetup --help 2>&1",
    "dracut": "dracut --help || :",
    "lsinitrd": "lsinitrd --help 2>&1 || :",
    "mkswap": "mkswap --help",
    "mount": "mount --help",
    "systemctl": "systemctl --help",
    "unshare": "unshare --help",
    "wipefs": "wipefs --help",
}
"""What a program says of its options, where it says that of each."""


@pytest.fixture(params=ALL)
def tree(lab: None, request: pytest.FixtureRequest) -> Path:  # noqa: ARG001
    return root_tree(request.param)


def test_systemd_knows_every_setting(tree: Path, tmp_path: Path) -> None:
    units = tmp_path / "units"
    texts = {path.rpartition("/")[2]: text for path, text in unit_files().items() if path.endswith(".service")}
    generated = {name: text for name, text in generated_files().items() if name != "module-setup.sh"}
    for name, text in {**texts, **generated}.items():
        (units / name).parent.mkdir(parents=True, exist_ok=True)
        (units / name).write_text(text)
    for path in units.glob("*@.service"):  # verified is an instance
        path.with_name(path.name.replace("@", "@x")).symlink_to(path.name)
    names = " ".join(f"'{path.name}'" for path in units.iterdir() if path.is_file() and "@." not in path.name)
    verify = (
        f"SYSTEMD_UNIT_PATH={SHARE}/units:/usr/lib/systemd/system systemd-analyze verify --man=no {names} 2>&1 || :"
    )
    said = in_chroot(tree, ["sh", "-c", verify], share=tmp_path)
    ours = [line for line in said.splitlines() if f"{SHARE}/units" in line]
    # what is not installed in this tree is not found
    assert [line for line in ours if not re.search(r"is not executable: |Failed to create .*/start", line)] == [], said


def test_dracut_has_every_function(tree: Path) -> None:
    text = "".join(path.read_text() for path in (tree / "usr/lib/dracut").glob("dracut-*.sh"))
    text += (tree / "usr/bin/dracut").read_text()
    defined = set(re.findall(r"^\s*(?:function )?([\w-]+)\(\)", text, re.MULTILINE))
    assert oldest.DRACUT - defined == set()
    (library,) = (tree / "usr/lib/dracut/modules.d").glob("*base/dracut-lib.sh")
    hooks = set(re.findall(r"^([\w-]+)\(\)", library.read_text(), re.MULTILINE))
    assert oldest.DRACUT_HOOKS - hooks == set()


def test_programs_know_every_option(tree: Path) -> None:
    """Where one says what it knows. What the others are given is run in tests/volumes/test_releases.py."""
    wanted: dict[str, set[str]] = {}
    for table in [*oldest.OPTIONS.values(), oldest.BUILD_PROGRAMS]:
        for program, options in table.items():
            wanted.setdefault(program, set()).update(options)
    for program, command in HELP.items():
        said = in_chroot(tree, ["sh", "-c", command])
        known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", said.replace("[no-]", "")))
        short = {option[:2] for option in known if not option.startswith("--")}
        missing = {one for one in wanted[program] if one not in known and one[:2] not in short}
        assert missing == set(), (program, said)
