"""Finding the volumes a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Config, Volume


def select(config: Config, names: Sequence[str]) -> list[Volume]:
    """Return the volumes called `names`, in that order; all of them when there are no names."""
    if not names:
        return list(config.volumes)
    known = {volume.volume: volume for volume in config.volumes}
    for name in names:
        if name not in known:
            raise ConfigError(f'no volume "{name}" is configured in {config.directory}/volumes', _hint(config, name))
    return [known[name] for name in dict.fromkeys(names)]


def notes(config: Config) -> list[str]:
    """Return what is worth a word about the files of the configuration, one sentence each.

    The message that there is no volume; and the skipped files that a user may expect to be read, or all of them if
    there is no volume.
    """
    none = not config.volumes
    passed_over = [f"note: {file}" for file in config.passed_over if file.likely or none]
    if none:
        what = "volumes can be used" if config.problems else "volumes are configured"
        return [f"No {what} in {config.directory}/volumes.", *passed_over]
    return passed_over


def _hint(config: Config, name: str) -> str:
    known = [volume.volume for volume in config.volumes]
    near = nearest(name, known)
    hint = f'did you mean "{near}"?' if near else f"configured volumes: {', '.join(known) or 'none'}"
    like = [str(file) for file in config.passed_over if file.likely]
    if like:
        hint += f"; {'; '.join(like)}"
    if config.problems:
        hint += "; or one of the files that cannot be used defines it"
    return hint
