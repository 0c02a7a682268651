"""`cryptpilot init`, `open` and `close`: what an administrator does to volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import volume
from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import new_key_of, terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, Interrupted, ProgramError
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.names import volume_unit
from cryptpilot_boot.system.init import stop_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.commands.each import Report, Result
    from cryptpilot_boot.config import Config, Volume

Confirm = Callable[[str], bool]


def init(
    config: Config,
    names: Sequence[str],
    report: Report,
    confirm: Confirm,
    force: volume.Force,
    warn: Callable[[str], None],
) -> bool:
    """Initialize persistent volumes; True when all are.

    confirm: asked of each before anything is done to any; what it says no to is not touched. force: what may be
    destroyed in addition to an interrupted init. warn: as of `close`.
    """
    targets: dict[str, volume.Target] = {}
    agreed = []
    good = True
    for one in select(config, names):
        try:
            others = [other for other in config.volumes if other.volume != one.volume]
            targets[one.volume] = target = volume.require_formattable(one, force, others)
            lost = ": all that will be lost." if target.found else "."
            if confirm(f"{target}{lost} Initialize it as volume {one.volume}?"):
                agreed.append(one)
                continue
            reason = CryptpilotError("not initialized: not confirmed", "nothing was changed")
        except Interrupted:
            raise
        except CryptpilotError as error:
            reason = error
        good = False
        report(one, reason)

    warnings: dict[str, str] = {}

    def initialize(one: Volume) -> str:
        first, *others = (new_key_of(one, number, terms) for number in range(len(one.sources)))
        unbound = volume.initialize(one, targets[one.volume], force, first, config.identity_file(one.volume), others)
        if unbound:
            warnings[one.volume] = (
                f"{one.volume}: is not bound to its disk: {unbound.what}; bind it once that can be written:"
                f" cryptpilot bind {one.volume}"
            )
        return f"{one.dev} is initialized; open it with: cryptpilot open {one.volume}"

    with terms_of(config) as terms:
        return each(agreed, initialize, _with_warnings(report, warnings, warn)) and good


def _with_warnings(report: Report, warnings: Mapping[str, str], warn: Callable[[str], None]) -> Report:
    """Return what reports on a volume and then gives the warning that there may be by then."""

    def report_one(one: Volume, result: Result) -> None:
        report(one, result)
        if one.volume in warnings:
            warn(warnings[one.volume])

    return report_one


_OPENED = {
    volume.Opening.WAS_OPEN: "was open already",
    volume.Opening.CURRENT: "is open{by}",
    volume.Opening.PREVIOUS: "is open{by}, with the previous value of its secret; rotate it: cryptpilot rotate {name}",
}


def open_volumes(config: Config, names: Sequence[str], report: Report, *, check_fs: bool) -> bool:
    """Open volumes; True when all are open, also if another program opened them.

    check_fs: whether their file systems are checked first.
    """

    def open_one(one: Volume) -> str:
        opened = volume.open_volume(one, Sources(one, terms), check_fs=check_fs)
        by = f" by {named(one, opened.source)}" if one.fallbacks and opened.source is not None else ""
        remains = f"; {volume.reencryption(one)}" if volume.examine(one).reencrypting else ""
        return f"{one.mapper_path} {_OPENED[opened.how].format(name=one.volume, by=by)}{remains}"

    with terms_of(config) as terms:
        return each(select(config, names), open_one, report)


def close(config: Config, names: Sequence[str], report: Report, warn: Callable[[str], None]) -> bool:
    """Close volumes; True when all are closed, also if another program closed them.

    warn: called with what a user should see to.
    """
    warnings: dict[str, str] = {}

    def close_one(one: Volume) -> str:
        closed = volume.close(one)
        service = volume_unit(one.volume)
        try:
            stop_unit(service)  # so that it can begin again
        except ProgramError as error:
            warnings[one.volume] = (
                f"{one.volume}: its unit was not stopped: {error.what}; until it is, systemd does not open the"
                f" volume again; stop it: systemctl stop '{service}'"
            )
        return f"{one.mapper_path} {'is closed' if closed else 'was closed already'}"

    return each(select(config, names), close_one, _with_warnings(report, warnings, warn))
