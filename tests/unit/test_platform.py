"""The platform's floor: what we use of systemd, dracut and other programs is what Enterprise Linux 8 has of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.config import Kms, Otp, Volume
from cryptpilot_boot.units import passing_over
from cryptpilot_boot.units.competing import Competitor
from cryptpilot_boot.units.units import mount, units
from tests.unit import oldest, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = ROOT / "cryptpilot_boot/system"
SHEBANG = re.compile(r"#!(\S+)")


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield section and name of each setting of a file of systemd."""
    section = ""
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.match(r"(\w+)\s*=", line):
            yield section, match[1]


def unit_files() -> dict[str, str]:
    """Return the files for systemd that are installed, or put into an image."""
    patterns = ("systemd/*.service", "initrd_hooks/*.service", "initrd_hooks/*.conf", "initrd_hooks/*.network")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def generated_files() -> dict[str, str]:
    """Return what the generator writes, with a volume and a line of fstab of each kind; and what the module writes."""
    kms = Kms("kst-1", "secret", "{}", "password", "pem")
    volumes = [
        Volume("data", "/dev/data", kms, Path("/x/data.toml"), auto_open=True),
        Volume("must", "/dev/must", kms, Path("/x/must.toml"), auto_open=True, required=True),
        Volume("early", "/dev/early", kms, Path("/x/early.toml"), auto_open=True),
        Volume("scratch", "/dev/scratch", Otp(), Path("/x/scratch.toml"), auto_open=True, makefs="ext4"),
    ]
    fstab = "".join(
        f"/dev/mapper/{name} {where} ext4 {options} 0 0\n"
        for name, where, options in (
            ("data", "/data", "defaults"),
            ("must", "/must", "nofail"),
            ("must", "/remote", "_netdev"),
            ("early", "/var", "defaults"),
            ("scratch", "/scratch", "defaults"),
        )
    )
    other = Competitor("data", "/etc/crypttab:1", "opens it", "remove it", mapping="old")
    made = units(volumes, fstab, [], 90, competitors=[other])
    condition = {"module-setup.sh": f"[Service]\n{passing_over.condition(['/dev/data'])}\n"}
    mounts = {name: mount(entry) for name, entry in made.netdev.items()}
    return {**made.files, **made.instead, **mounts, **condition}


@pytest.mark.parametrize("file", [*unit_files(), "generated"])
def test_systemd_239_knows_every_setting(file: str) -> None:
    texts = generated_files() if file == "generated" else {file: unit_files()[file]}
    assert len(texts) > 4 or file != "generated"
    unknown = {
        (name, *setting)
        for name, text in texts.items()
        for setting in settings(text)
        if setting[1] not in oldest.SECTIONS.get(setting[0], ()) and setting not in oldest.YOUNGER_SETTINGS
    }
    assert unknown == set()
    assert any(True for text in texts.values() for _ in settings(text))


def test_no_unit_that_waits_for_a_device_holds_up_the_shutdown() -> None:
    """As systemd's own did before 241: ordered before it, without a conflict with it."""
    for name, text in {**unit_files(), **generated_files()}.items():
        values: dict[str, list[str]] = {}
        for key, value in re.findall(r"^(Before|Conflicts)=(.*)$", text, re.MULTILINE):
            values.setdefault(key, []).extend(value.split())
        assert "shutdown.target" not in values.get("Before", []) or "shutdown.target" in values["Conflicts"], name


def scripts() -> list[Path]:
    """Return all that is installed and begins as a script does."""
    patterns = ("dracut/*/*", "initrd_hooks/*", "systemd/*", "udev/*")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    return [path for path in paths if SHEBANG.match(path.read_text())]


MODULE = sorted((ROOT / "dracut/95cryptpilot").glob("*.sh"))
"""dracut's module, and the parts that it sources."""


def test_no_script_needs_more_than_a_shell() -> None:
    """The interpreters of Enterprise Linux 8 and its minimal images: no Python but 3.6, no Perl."""
    found = {path: SHEBANG.match(path.read_text())[1] for path in scripts()}  # type: ignore[index]
    assert {found.pop(path) for path in MODULE} == {"/bin/bash"}  # as dracut itself is
    assert set(found.values()) == {"/bin/sh"}
    assert len(found) > 10


def unknown(text: str, functions: set[str], programs: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Return the commands of a script that are none of these, and options of programs that are not in the table."""
    found: set[tuple[str, ...]] = set()
    for command in shell.commands(text):
        name = {"${SYSTEMCTL:-systemctl}": "systemctl"}.get(command.name, command.name)
        if name in functions | shell.functions(text) or name.endswith('cryptpilot"') or "/cryptpilot" in name:
            continue
        if name not in programs:
            found.add((name,))
            continue
        options = {
            letter
            for option in command.options
            for letter in ([option] if option.startswith("--") else [f"-{letter}" for letter in option[1:]])
        }
        found |= {(name, option) for option in options - programs[name]}
    return found


def test_dracut_049_has_every_function_of_the_module_and_its_system_every_program() -> None:
    text = "".join(path.read_text() for path in MODULE).replace('${dracutsysrootdir:+chroot "$dracutsysrootdir"} ', "")
    assert unknown(text, oldest.DRACUT | oldest.BASH, oldest.BUILD_PROGRAMS) == set()
    names = {command.name for command in shell.commands(text)}
    assert oldest.DRACUT - names == set(), "the table has more than is used"


@pytest.mark.parametrize("path", [path for path in scripts() if path not in MODULE], ids=lambda path: path.name)
def test_a_script_for_the_boot_runs_what_is_there(path: Path) -> None:
    text = path.read_text().replace('"$action" -n -f', ":")  # reboot, poweroff or halt
    assert unknown(text, oldest.SH | oldest.DRACUT_HOOKS, oldest.RUN_PROGRAMS) == set()


def test_the_reading_of_scripts_finds_what_is_not_in_a_table() -> None:
    script = """
f() {
    case $1 in
        a | b) [[ $x == y ]] && python3 "$(inst_new "$y")" ;;
    esac
}
x=1 grep -qP a
"""
    assert unknown(script, set(), {"grep": {"-q"}}) == {("python3",), ("inst_new",), ("grep", "-P")}


def options_of(path: Path) -> set[str]:
    """Return the options in a module: words of its strings that begin as one does. Hints have some too, to be typed."""
    tree = ast.parse(path.read_text())
    sentences = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in sentences
    ]
    return {word for text in texts for word in re.findall(r"(?:^|(?<=\s))--?[A-Za-z][\w-]*", text)}


@pytest.mark.parametrize("path", sorted(SYSTEM.glob("*.py")), ids=lambda path: path.name)
def test_programs_know_every_option(path: Path) -> None:
    table = oldest.OPTIONS.get(path.name, {})
    known = {option for options in table.values() for option in options}
    assert options_of(path) - known == set()
    assert known - options_of(path) == set(), "the table has more than is used"


def test_nobody_else_gives_options_to_programs() -> None:
    """What is not in the room that runs programs says its options to persons, or to our own command."""
    words = {"run", "run_within"}
    for path in (ROOT / "cryptpilot_boot").rglob("*.py"):
        if path.parent == SYSTEM:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in words:
                given = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert {one for one in given if str(one).startswith("-")} <= {"--version"}, (path, node.lineno)
