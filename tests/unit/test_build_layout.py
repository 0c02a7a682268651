"""What gets installed, where, and with which modes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib import layout, manifest, sbom
from buildlib.base import ROOT, BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

USR = Path("/usr")
MODULE = "usr/lib/dracut/modules.d/95cryptpilot"


@pytest.fixture(params=[0o077, 0o000, 0o022], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def write(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def make_bundle(place: Path, *libraries: str) -> Path:
    write(place / "cryptpilot", "#!/bin/sh\necho it runs\n", 0o755)
    for library in libraries:
        write(place / "_internal" / library)
    for directory in (place, place / "_internal"):
        directory.chmod(0o755)
    manifest.write(place, manifest.Origin("1", "3.11.2", "0"), [])
    return place


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", "libfoo.so.1")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    checkout = tmp_path / "checkout"
    write(checkout / "dracut/95cryptpilot/module-setup.sh", "#!/bin/bash\n", 0o600)
    write(checkout / "initrd_hooks/cryptpilot-initrd.service", "[Unit]\n", 0o664)
    write(checkout / "dracut/dracut.conf.d/50-cryptpilot.conf")
    write(checkout / "dracut/dracut.conf.d/README")
    write(checkout / "systemd/cryptpilot.service")
    write(checkout / "systemd/cryptpilot-generator", "#!/bin/sh\n")
    write(checkout / "udev/00-cryptpilot.rules")
    write(checkout / "etc/cryptpilot/global.toml", "# [boot]\n")
    return checkout


def modes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): f"{stat.S_IMODE(path.lstat().st_mode):04o}"
        for path in root.rglob("*")
        if not path.is_symlink()
    }


@pytest.mark.usefixtures("umask")
def test_layout_and_modes_whatever_the_umask(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    layout.install(bundle, root, USR, checkout)
    found = modes(root)
    files = {path: mode for path, mode in found.items() if (root / path).is_file() and "/manifest." not in path}
    assert files == {
        "etc/cryptpilot/global.toml": "0600",
        "usr/libexec/cryptpilot/_internal/libfoo.so.1": "0644",
        "usr/libexec/cryptpilot/cryptpilot": "0755",
        "usr/libexec/cryptpilot-generator": "0755",
        "usr/lib/dracut/dracut.conf.d/50-cryptpilot.conf": "0644",
        f"{MODULE}/cryptpilot-initrd.service": "0644",
        f"{MODULE}/module-setup.sh": "0755",
        "usr/lib/systemd/system/cryptpilot.service": "0644",
        "usr/lib/udev/rules.d/00-cryptpilot.rules": "0644",
    }
    directories = {path: mode for path, mode in found.items() if (root / path).is_dir()}
    private = {path for path, mode in directories.items() if mode == "0700"}
    assert private == {"etc/cryptpilot", "etc/cryptpilot/volumes"}
    assert {mode for path, mode in directories.items() if path not in private} == {"0755"}
    manifest.require_sound(root / "usr/libexec/cryptpilot")


def test_the_command_is_a_relative_link_into_the_bundle(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    layout.install(bundle, root, USR, checkout)
    command = root / "usr/bin/cryptpilot"
    assert str(command.readlink()) == "../libexec/cryptpilot/cryptpilot"
    assert command.resolve() == root / "usr/libexec/cryptpilot/cryptpilot"


def test_the_generator_is_a_link_to_a_program_like_others(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    """SELinux goes by what the link leads to; an older version had the file itself here."""
    root = tmp_path / "root"
    generator = write(root / "usr/lib/systemd/system-generators/cryptpilot-generator", "#!/bin/sh\n", 0o755)
    assert generator in layout.install(bundle, root, USR, checkout)
    assert str(generator.readlink()) == "../../../libexec/cryptpilot-generator"
    assert os.access(generator, os.X_OK)


def test_the_configuration_of_a_user_is_left_alone(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    volume = write(root / "etc/cryptpilot/volumes/data0.toml", "theirs", 0o640)
    settings = write(root / "etc/cryptpilot/global.toml", "theirs too", 0o644)
    (root / "etc/cryptpilot").chmod(0o750)
    before = modes(root)
    layout.install(bundle, root, USR, checkout)
    assert volume.read_text() == "theirs"
    assert settings.read_text() == "theirs too"
    assert before.items() <= modes(root).items()


def test_what_an_older_version_left_goes_and_nothing_else_does(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    older = make_bundle(tmp_path / "older", "libfoo.so.1", "libold.so.1")
    write(checkout / "initrd_hooks/old-hook.sh", "#!/bin/sh\n")
    layout.install(older, root, USR, checkout)
    (checkout / "initrd_hooks/old-hook.sh").unlink()
    strangers = [
        write(root / "usr/lib/dracut/dracut.conf.d/01-dist.conf"),
        write(root / "usr/lib/systemd/system/sshd.service"),
        write(root / "usr/lib/libother.so.1"),
    ]
    layout.install(bundle, root, USR, checkout)
    assert not (root / "usr/libexec/cryptpilot/_internal/libold.so.1").exists()
    assert not (root / MODULE / "old-hook.sh").exists()
    assert all(stranger.exists() for stranger in strangers)
    assert not list(root.rglob(".*")), "unfinished files were left"
    manifest.require_sound(root / "usr/libexec/cryptpilot")


def test_the_bundle_is_removed_from_its_former_place(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    stranger = write(root / "usr/lib/cryptpilot/theirs")
    layout.install(bundle, root, USR, checkout)
    assert stranger.exists(), "without a manifest it is not a bundle"
    shutil.copytree(bundle, root / "usr/lib/cryptpilot", dirs_exist_ok=True)
    layout.install(bundle, root, USR, checkout)
    assert not (root / "usr/lib/cryptpilot").exists()


def test_another_prefix_leaves_etc_where_it_is(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    layout.install(bundle, root, Path("/opt/cp"), checkout)
    assert (root / "opt/cp/bin/cryptpilot").exists()
    assert (root / "etc/cryptpilot/volumes").is_dir()
    assert not (root / "usr").exists()


def test_a_checkout_without_the_extras_installs_the_agent(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    layout.install(bundle, tmp_path / "root", USR, tmp_path / "empty")
    assert (tmp_path / "root/usr/bin/cryptpilot").exists()


def test_a_bundle_that_is_not_sound_is_not_installed(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    (bundle / "_internal/libfoo.so.1").write_text("changed")
    with pytest.raises(BuildError, match="has been changed"):
        layout.install(bundle, tmp_path / "root", USR, checkout)
    assert not (tmp_path / "root").exists()


def test_a_place_that_cannot_be_written_to_is_an_error_that_names_it(
    bundle: Path, checkout: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    write(root / "usr", "a file where a directory should be")
    with pytest.raises(BuildError) as caught:
        layout.install(bundle, root, USR, checkout)
    assert str(root / "usr") in caught.value.what
    assert "--destdir" in caught.value.hint


def test_the_list_of_what_a_bundle_carries_is_documentation(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    listed = sbom.beside(bundle)
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    properties = [{"name": "cryptpilot:manifest.json:sha256", "value": digest}]
    write(listed, json.dumps({"metadata": {"properties": properties}}), 0o600)
    written = layout.install(bundle, tmp_path / "root", USR, checkout)
    installed = tmp_path / "root/usr/share/doc/cryptpilot/bundle.cdx.json"
    assert installed in written
    assert installed.read_text() == listed.read_text()
    assert stat.S_IMODE(installed.stat().st_mode) == 0o644


@pytest.mark.parametrize("text", ["", "{}", '{"metadata": {"properties": []}}'])
def test_the_list_of_another_bundle_is_not_installed(bundle: Path, checkout: Path, tmp_path: Path, text: str) -> None:
    write(sbom.beside(bundle), text)
    with pytest.raises(BuildError, match="another bundle"):
        layout.install(bundle, tmp_path / "root", USR, checkout)
    assert not (tmp_path / "root").exists()


def test_a_relative_prefix_is_an_error(bundle: Path, checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not an absolute path"):
        layout.install(bundle, tmp_path / "root", Path("usr"), checkout)


def test_what_is_installed_is_what_the_guide_for_packagers_lists(bundle: Path, tmp_path: Path) -> None:
    guide = (ROOT / "docs/packaging.md").read_text()
    written = layout.install(bundle, tmp_path / "root", USR)
    listed = [line.strip() for line in guide.splitlines() if line.startswith("    root/")]
    listed.remove("root/usr/share/doc/cryptpilot/cryptpilot.cdx.json")  # which this bundle lacks
    assert listed == [str(path.relative_to(tmp_path)) for path in written if path.suffix != ".md"]
    documents = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    documents = {name for name in documents if not name.startswith("dev/")}  # for contributors, who have a checkout
    installed = tmp_path / "root/usr/share/doc/cryptpilot"
    assert {str(path.relative_to(installed)) for path in written if path.suffix == ".md"} == documents
    for row in layout.COPIED:
        assert f"`{row.source}`" in guide
