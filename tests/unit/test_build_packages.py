"""What packages are made of and refused for; the same commit gives the same bytes. Small ones, of a small bundle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib import layout, sbom
from buildlib.base import ROOT, BuildError, digest_of_file
from buildlib.distribute import deb, licenses, rpm, stage
from buildlib.distribute.stage import Facts
from cryptpilot_boot.config import Boot, load
from tests.unit.test_build_layout import make_bundle

if TYPE_CHECKING:
    pass

EPOCH = 1_700_000_000
ABOUT = Facts("1.2", "3", EPOCH, "x86_64", "amd64", ("ld-linux-x86-64.so.2", "libc.so.6", "libz.so.1"),
              {"GLIBC": "2.28", "ZLIB": "1.2.0"})  # fmt: skip
X86_64 = b"\x7fELF" + bytes(14) + (62).to_bytes(2, "little")


def git(place: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", place, *who, *words], check=True, capture_output=True)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    place = tmp_path / "checkout"
    place.mkdir()
    (place / "file").write_text("committed\n")
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "--message", "x", "--date", "@1")
    return place


def test_a_package_has_the_time_of_its_commit(committed: Path) -> None:
    assert abs(stage.commit(committed) - time.time()) < 60


@pytest.mark.parametrize("change", ["changed", "new", "staged"])
def test_a_dirty_checkout_is_refused_and_says_what_is_dirty(committed: Path, change: str) -> None:
    name = "file" if change == "changed" else "other"
    (committed / name).write_text("not committed\n")
    if change == "staged":
        git(committed, "add", name)
    with pytest.raises(BuildError) as caught:
        stage.commit(committed)
    assert "not as it was committed" in caught.value.what
    assert name in caught.value.what
    assert caught.value.hint == "commit, or remove what is new"


def test_without_a_commit_there_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="git"):
        stage.commit(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", "libfoo.so.1")


def reseal(bundle: Path) -> None:
    """Make a bundle's launcher one for x86_64, and its manifest fit."""
    (bundle / "cryptpilot").write_bytes(X86_64)
    (bundle / "cryptpilot").chmod(0o755)
    path = bundle / "manifest.json"
    table = json.loads(path.read_text())
    for entry in table["files"]:
        if entry["path"] == "cryptpilot":
            entry["sha256"] = digest_of_file(bundle / "cryptpilot")
    path.write_text(json.dumps(table))


def test_the_machine_of_a_bundle_is_what_its_launcher_is_for(bundle: Path) -> None:
    with pytest.raises(BuildError, match="machine that packages are not made for"):
        stage.facts(bundle, "1", EPOCH)
    reseal(bundle)
    about = stage.facts(bundle, "2", EPOCH)
    assert (about.rpm_machine, about.deb_machine, about.release) == ("x86_64", "amd64", "2")


@pytest.mark.parametrize("damage", ["changed", "missing", "additional"])
def test_a_damaged_bundle_is_refused(bundle: Path, damage: str) -> None:
    reseal(bundle)
    library = bundle / "_internal/libfoo.so.1"
    if damage == "missing":
        library.unlink()
    else:
        (library if damage == "changed" else bundle / "more").write_bytes(b"x")
    with pytest.raises(BuildError, match="is not as its manifest has it"):
        stage.facts(bundle, "1", EPOCH)


@pytest.mark.parametrize("release", ["", "0", "-1", "1.el8", "1;x", "%{x}"])
def test_a_release_is_a_number(bundle: Path, release: str) -> None:
    with pytest.raises(BuildError, match="no release"):
        stage.facts(bundle, release, EPOCH)


def test_the_system_has_to_have_the_libraries_and_their_versions() -> None:
    assert rpm.libraries(ABOUT) == (
        "libc.so.6()(64bit), libc.so.6(GLIBC_2.28)(64bit), libz.so.1()(64bit), libz.so.1(ZLIB_1.2.0)(64bit)"
    )


def tree(place: Path) -> Path:
    """Make a tree of the files that the packages name, without a bundle in it that would take long to compress."""
    for path in listed_files():
        file = place / path.strip("/").rstrip("*")
        is_directory = file.name in ("cryptpilot", "volumes", "95cryptpilot") and "bin/" not in path
        if is_directory and "completions" not in path:
            file.mkdir(parents=True, exist_ok=True)
            file.chmod(0o755)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{path}\n")
        file.chmod(0o644)
    for index in range(30):
        (place / f"usr/libexec/cryptpilot/{index}").write_text(f"{index}" * 100)
    for made in place.rglob("*"):
        made.chmod(0o755 if made.is_dir() else 0o644)
    stage.settle(place, EPOCH)
    return place


def listed_files() -> list[str]:
    """Return the paths that the spec lists."""
    spec = (ROOT / rpm.SPEC).read_text().partition("%files")[2].partition("%pre")[0]
    return re.findall(r"(/(?:usr|etc)/\S+)$", spec, re.MULTILINE)


def covers(listed: str, path: str) -> bool:
    """Tell whether an entry of the spec stands for a path, as itself, as a pattern or as a directory above it."""
    return path.startswith(listed[:-1]) if listed.endswith("*") else f"{path}/".startswith(f"{listed}/")


def test_the_spec_lists_all_that_is_installed_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    """Or rpmbuild refuses it."""
    root = tmp_path / "root"
    layout.install(bundle, root, Path("/usr"))
    installed = [f"/{path.relative_to(root)}" for path in root.rglob("*")]
    files = [path for path in installed if not (root / path[1:]).is_dir() or (root / path[1:]).is_symlink()]
    assert [path for path in files if not any(covers(listed, path) for listed in listed_files())] == []
    unused = [listed for listed in listed_files() if not any(covers(listed, path) for path in installed)]
    assert unused == ["/usr/share/licenses/cryptpilot"], "which is put beside the layout"


@pytest.mark.needs("rpmbuild")
@pytest.mark.parametrize("kind", [rpm, deb], ids=["rpm", "deb"])
def test_the_same_tree_gives_the_same_bytes_at_any_time_and_place(
    tmp_path: Path, kind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = []
    before = os.umask(0o022)
    try:
        for number, (mask, zone) in enumerate([(0o022, "UTC"), (0o077, "Asia/Shanghai")]):
            os.umask(0o022)
            place = tree(tmp_path / f"{number}" / ("tree" * (number + 1)))
            os.umask(mask)
            monkeypatch.setenv("TZ", zone)
            monkeypatch.setenv("SOURCE_DATE_EPOCH", str(number))
            packages.append(kind.build(place, ABOUT, tmp_path / f"output{number}").read_bytes())  # type: ignore[attr-defined]
            time.sleep(1.1)  # the clock goes on, and a build time would show
    finally:
        os.umask(before)
    assert packages[0] == packages[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packages")
    root = tree(place / "tree")
    for kind in (rpm, deb):
        kind.build(root, ABOUT, place)
    return place


def ask(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.needs("rpmbuild")
def test_an_rpm_provides_nothing_but_itself_and_needs_what_there_is(made: Path) -> None:
    file = made / rpm.file_name(ABOUT)
    assert ask("rpm", "-qp", "--provides", file).split("\n")[:-1] == [
        "cryptpilot = 1:1.2-3",
        "cryptpilot(x86-64) = 1:1.2-3",
    ]
    needed = {line for line in ask("rpm", "-qp", "--requires", file).splitlines() if not line.startswith("rpmlib")}
    assert {"cryptsetup >= 2.2", "dracut-network", "e2fsprogs", "libc.so.6(GLIBC_2.28)(64bit)"} <= needed
    assert not {line for line in needed if "ssl" in line or "crypto" in line or "GLIBC_PRIVATE" in line}
    assert {"xfsprogs", "dosfstools"} <= set(ask("rpm", "-qp", "--recommends", file).split())
    assert not [path for path in ask("rpm", "-qpl", file).split() if ".build-id" in path or path.endswith(".pyc")]
    assert ask("rpm", "-qp", "--queryformat", "%{BUILDTIME} %{BUILDHOST} %{PAYLOADCOMPRESSOR}", file) == (
        f"{EPOCH} localhost xz"
    )


@pytest.mark.needs("rpmbuild")
def test_the_settings_are_the_administrators(made: Path) -> None:
    settings = "/etc/cryptpilot/global.toml"
    file = made / rpm.file_name(ABOUT)
    assert ask("rpm", "-qpc", file).split() == [settings]
    flags = dict(line.split() for line in ask("rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\\n]",
                                              file).splitlines() if len(line.split()) == 2)  # fmt: skip
    assert flags[settings] == "cn", "config(noreplace)"
    modes = dict(line.split() for line in ask("rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEMODES:octal}\\n]",
                                              file).splitlines())  # fmt: skip
    assert (modes["/etc/cryptpilot"], modes["/etc/cryptpilot/volumes"], modes[settings]) == ("40700", "40700", "100600")
    package = made / deb.file_name(ABOUT)
    assert ask("dpkg-deb", "--info", package, "conffiles").split() == [settings]
    control = ask("dpkg-deb", "--field", package)
    assert "Depends: libc6 (>= 2.28), libgcc-s1, zlib1g, cryptsetup-bin" in control
    assert "@" not in control.partition("Maintainer")[0]


@pytest.mark.needs("rpmbuild")
def test_man_pages_and_completion_are_where_each_distribution_looks(made: Path) -> None:
    manual = {"man8/cryptpilot.8", "man5/cryptpilot.toml.5", "man7/cryptpilot.cmdline.7"}
    in_rpm = set(ask("rpm", "-qpl", made / rpm.file_name(ABOUT)).split())
    assert {f"/usr/share/man/{page}" for page in manual} <= {path.rstrip("*") for path in in_rpm}
    assert "/usr/share/zsh/site-functions/_cryptpilot" in in_rpm
    in_deb = set(re.findall(r" \.(/\S+)", ask("dpkg-deb", "--contents", made / deb.file_name(ABOUT))))
    assert {f"/usr/share/man/{page}.gz" for page in manual} <= in_deb
    assert "/usr/share/zsh/vendor-completions/_cryptpilot" in in_deb
    assert not [path for path in in_deb if "site-functions" in path]
    assert {"/usr/share/bash-completion/completions/cryptpilot"} <= in_rpm & in_deb


def test_what_is_shipped_changes_nothing_and_the_examples_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "global.toml").write_text((ROOT / "etc/cryptpilot/global.toml").read_text())
    assert load(tmp_path).boot == Boot()
    commented = re.sub(r"^#(?=[\[\w])", "", (ROOT / "etc/cryptpilot/global.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "global.toml").write_text(commented)
    assert load(tmp_path).boot == Boot(), "what is commented out are the defaults"
    for path in sorted((ROOT / "examples").glob("*.toml")):
        if "BEGIN CERTIFICATE" not in path.read_text():
            (tmp_path / "volumes" / path.name).write_text(path.read_text())
            (tmp_path / "volumes" / path.name).chmod(0o600)
    config = load(tmp_path)
    assert (len(config.volumes), config.problems) == (3, ())


def listed(bundle: Path, components: object) -> None:
    sbom.beside(bundle).write_text(json.dumps({"components": components}))


def test_all_that_is_carried_has_a_license_text_or_there_is_no_package(tmp_path: Path) -> None:
    bundle, place = tmp_path / "cryptpilot", tmp_path / "licenses"
    package = tmp_path / "venv/lib/python3.12/site-packages/Foo_Bar-1.dist-info"
    (package / "licenses").mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1\n")
    (package / "licenses/LICENSE.txt").write_text("do what you like")
    (package / "RECORD").write_text("Foo_Bar-1.dist-info/licenses/LICENSE.txt,,\nFoo_Bar-1.dist-info/METADATA,,\n")
    bare = {"name": "bare", "version": "3", "licenses": [{"expression": "MIT OR Apache-2.0"}]}
    own = {"name": "foo-bar", "version": "1", "purl": "pkg:pypi/foo-bar@1"}
    listed(bundle, [own, bare])
    licenses.collect(bundle, tmp_path / "venv", place)
    assert (place / "foo-bar/LICENSE.txt").read_text() == "do what you like"
    assert (place / "INDEX").read_text() == "foo-bar 1: foo-bar/\nbare 3, MIT OR Apache-2.0: LICENSE\n"
    listed(bundle, [{"name": "other", "version": "2", "purl": "pkg:pypi/other@2", "licenses": []}])
    with pytest.raises(BuildError, match="no license text of other 2"):
        licenses.collect(bundle, tmp_path / "venv", tmp_path / "again")
