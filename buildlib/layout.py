"""Laying out what gets installed."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from buildlib import manifest, sbom
from buildlib.base import ROOT, BuildError, lay_out

# Programs below lib are lib_t for SELinux, and one that systemd starts from there stays in its domain, which may not
# connect to anything; below libexec they are bin_t.
_BUNDLE = "libexec/cryptpilot"
_FORMER_BUNDLE = "lib/cryptpilot"
_COMMAND = "bin/cryptpilot"
# What the existing Rust implementation calls its own since it has several: scripts and units need no change.
_OTHER_NAME = "bin/cryptpilot-crypt"
# A link as well: a file there gets a domain that may write units and little else.
_GENERATOR = "lib/systemd/system-generators/cryptpilot-generator"
_DRACUT_MODULE = "lib/dracut/modules.d/95cryptpilot"
_DOCUMENTATION = "share/doc/cryptpilot"
_CONFIGURATION = "etc/cryptpilot"


@dataclasses.dataclass(frozen=True)
class Copied:
    """Files of the checkout, and the directory they go to below the prefix.

    A source that matches nothing installs nothing. Scripts become executable. `configuration` goes below the root
    instead, for root's eyes only, and never in place of a file that is there.
    """

    source: str
    directory: str
    configuration: bool = False


COPIED = (
    Copied("dracut/95cryptpilot/*", _DRACUT_MODULE),
    Copied("initrd_hooks/*", _DRACUT_MODULE),
    Copied("dracut/dracut.conf.d/*.conf", "lib/dracut/dracut.conf.d"),
    Copied("systemd/*.service", "lib/systemd/system"),
    Copied("systemd/cryptpilot-generator", "libexec"),
    Copied("systemd/cryptpilot-unless-ours", "libexec"),
    Copied("systemd/cryptpilot-volume", "libexec"),
    Copied("systemd/*.preset", "lib/systemd/system-preset"),
    Copied("packaging/cryptpilot-package", "libexec"),
    Copied("udev/*.rules", "lib/udev/rules.d"),
    Copied("man/*.8", "share/man/man8"),
    Copied("man/*.5", "share/man/man5"),
    Copied("man/*.7", "share/man/man7"),
    Copied("completions/cryptpilot", "share/bash-completion/completions"),
    Copied("completions/_cryptpilot", "share/zsh/site-functions"),
    Copied("docs/*.md", _DOCUMENTATION),
    Copied("docs/zh/*.md", f"{_DOCUMENTATION}/zh"),
    Copied("examples/*.toml", f"{_DOCUMENTATION}/examples"),
    Copied("etc/cryptpilot/*.toml", _CONFIGURATION, configuration=True),
)
"""All that is installed beside the bundle; docs/packaging.md has it too."""

# Volumes' files hold client keys.
_PRIVATE_DIRECTORIES = (_CONFIGURATION, f"{_CONFIGURATION}/volumes")


def install(bundle: Path, root: Path, prefix: Path, checkout: Path = ROOT) -> list[Path]:
    """Lay out the bundle and all that belongs to it; return the files and directories written.

    prefix: within the root; "/usr" is where dracut and systemd look. Raises BuildError when the bundle is not sound
    or a place cannot be written to.
    """
    if not prefix.is_absolute():
        raise BuildError(f"--prefix {prefix} is not an absolute path", "--destdir is for another place")
    manifest.require_sound(bundle)
    carried = sbom.beside(bundle)
    if carried.exists() and not sbom.is_of(carried, bundle):
        raise BuildError(f"{carried} is the list of another bundle", "build both again: build.py freeze")
    try:
        return _install(bundle, root, root / prefix.relative_to("/"), checkout)
    except OSError as error:
        raise BuildError(
            f"{error.filename}: {error.strerror}",
            "installing into the running system takes root; --destdir names another place",
        ) from None


def _install(bundle: Path, root: Path, usr: Path, checkout: Path) -> list[Path]:
    for private in _PRIVATE_DIRECTORIES:
        _make_directory(root / private, 0o700)
    _make_directory((usr / _BUNDLE).parent)
    lay_out(bundle, usr / _BUNDLE)
    written = [usr / _BUNDLE]
    for row in COPIED:
        directory = (root if row.configuration else usr) / row.directory
        for source in sorted(path for path in checkout.glob(row.source) if path.is_file()):
            target = directory / source.name
            if not (row.configuration and target.exists()):
                written.append(_copy(source, target, 0o600 if row.configuration else _mode(source)))
    carried = sbom.beside(bundle)
    if carried.exists():
        written.append(_copy(carried, usr / _DOCUMENTATION / carried.name, 0o644))
    _remove_others(usr / _DRACUT_MODULE, written)
    if (usr / _FORMER_BUNDLE / manifest.MANIFEST).exists():
        shutil.rmtree(usr / _FORMER_BUNDLE)
    written.append(_link(usr / _GENERATOR, usr / "libexec/cryptpilot-generator"))
    written += [_link(usr / name, usr / _BUNDLE / "cryptpilot") for name in (_COMMAND, _OTHER_NAME)]
    return written


def _mode(source: Path) -> int:
    with source.open("rb") as file:
        return 0o755 if file.read(2) == b"#!" else 0o644


def _make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory and those above it. One that is there keeps its mode: that was somebody's choice."""
    for directory in [*reversed(path.parents), path]:
        if not directory.exists():
            directory.mkdir()
            directory.chmod(mode if directory == path else 0o755)


def _copy(source: Path, target: Path, mode: int) -> Path:
    """Copy a file; its place holds the old one or the new one at any time."""
    _make_directory(target.parent)
    unfinished = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, unfinished)
    unfinished.chmod(mode)
    return unfinished.replace(target)


def _link(path: Path, target: Path) -> Path:
    _make_directory(path.parent)
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(os.path.relpath(target, path.parent))
    return unfinished.replace(path)


def _remove_others(directory: Path, ours: list[Path]) -> None:
    """Remove what an older version left in a directory that is ours alone."""
    for path in directory.glob("*"):
        if path.is_file() and path not in ours:
            path.unlink()
