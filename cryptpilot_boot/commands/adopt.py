"""`cryptpilot adopt`: volumes that another program made, with their data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.volume.adopt import adopt as adopt_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable

    from cryptpilot_boot.commands.each import Report, Result
    from cryptpilot_boot.config import Config, Volume


def adopt(config: Config, names: Sequence[str], report: Report, warn: Callable[[str], None]) -> bool:
    """Adopt volumes; True when all are ours. warn: called with what else there is to see to."""
    warnings: dict[str, list[str]] = {}

    def adopt_one(one: Volume) -> str:
        done = adopt_volume(one, config.identity_file(one.volume), Sources(one, terms))
        warnings[one.volume] = list(_warnings(one, done.inside, done.unbound.what if done.unbound else ""))
        how = "was a volume of cryptpilot already" if done.marked else "is adopted"
        held = f": it holds {done.inside}" if done.inside else ""
        return f"{one.dev} {how}{held}; open it with: cryptpilot open {one.volume}"

    def report_one(one: Volume, result: Result) -> None:
        report(one, result)
        for warning in warnings.get(one.volume, []):
            warn(f"{one.volume}: {warning}")

    with terms_of(config) as terms:
        return each(select(config, names), adopt_one, report_one)


def _warnings(one: Volume, inside: str, unbound: str) -> list[str]:
    """Return warnings about an adopted volume. inside: its content in words, "" if it was not checked."""
    found = []
    if unbound:
        found.append(
            f"is not bound to its disk: {unbound}; bind it once that can be written: cryptpilot bind {one.volume}"
        )
    if inside == "nothing" and one.makefs:
        found.append(
            f'it holds no file system, but its file says makefs = "{one.makefs}": making it may have been interrupted;'
            f" check it before you write to it: blkid --probe {one.mapper_path}"
        )
    return found
