"""What of cryptpilot goes into an image: what is installed here, file by file, and the configuration of one volume."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.system.foreign_root import Root

USR = Path("/usr")
PATTERNS = (
    "libexec/cryptpilot",
    "libexec/cryptpilot-*",
    "bin/cryptpilot",
    "bin/cryptpilot-crypt",
    "lib/dracut/modules.d/95cryptpilot",
    "lib/dracut/dracut.conf.d/*cryptpilot*.conf",
    "lib/systemd/system/cryptpilot*.service",
    "lib/systemd/system-generators/cryptpilot-generator",
    "lib/systemd/system-preset/*cryptpilot*.preset",
    "lib/udev/rules.d/*cryptpilot*.rules",
    "share/man/man8/cryptpilot*",
    "share/man/man5/cryptpilot*",
    "share/man/man7/cryptpilot*",
    "share/bash-completion/completions/cryptpilot",
    "share/zsh/*/_cryptpilot",
)
"""All that `build.py install` and the packages lay out below /usr, but for the documentation."""


def files(usr: Path = USR) -> Iterator[Path]:
    """Yield the files and links of the cryptpilot that is installed below `usr`."""
    for pattern in PATTERNS:
        for path in sorted(usr.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                yield from (one for one in sorted(path.rglob("*")) if one.is_symlink() or not one.is_dir())
            else:
                yield path


def require_installed() -> None:
    """Raise CryptpilotError unless this machine has an installed cryptpilot, which goes into the image."""
    if not (paths.MANIFEST).exists():
        raise CryptpilotError(
            f"{paths.BUNDLE} is missing: cryptpilot has to be installed here, since this copy goes into the image",
            "install cryptpilot on this machine, by its package or by make install",
        )


def is_in(root: Root) -> bool:
    """Tell whether a root has a cryptpilot already, of a package."""
    return root.has(str(paths.MANIFEST))


def install(root: Root, usr: Path = USR) -> None:
    """Put cryptpilot into a root."""
    for path in files(usr):
        name = f"/usr/{path.relative_to(usr)}"
        if path.is_symlink():
            root.link(name, str(path.readlink()))
        else:
            root.write(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))


def configure(root: Root, config: Config, volume: Volume) -> Path:
    """Put the configuration of one volume into a root; return the path for its binding."""
    for directory in ("", "/volumes", "/identities"):
        root.make_directory(f"{DEFAULT_DIRECTORY}{directory}", 0o700)
    settings = config.directory / "global.toml"
    if settings.exists():
        root.write(f"{DEFAULT_DIRECTORY}/global.toml", settings.read_bytes(), 0o600)
    root.write(f"{DEFAULT_DIRECTORY}/volumes/{volume.volume}.toml", volume.source.read_bytes(), 0o600)
    return root.place(f"{DEFAULT_DIRECTORY}/identities") / f"{volume.volume}.toml"
