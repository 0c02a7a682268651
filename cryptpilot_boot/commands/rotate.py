"""`cryptpilot rotate`: a secret was rotated in KMS; now the volumes that it opens are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import keys
from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.keys.asking import question
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.providers import table
from cryptpilot_boot.volume.rotate import rotate as rotate_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume


def rotate(config: Config, names: Sequence[str], report: Report) -> bool:
    """Move volumes to the current values of their secrets; True when all are there, also if another run moved them."""

    def rotate_one(one: Volume) -> str:
        if not one.fallbacks:
            return rotate_source(one, 0)
        if not any(keys.previous(source) for source in one.sources):
            raise _nothing_to_rotate(one)
        said, failures = [], []
        for number, source in enumerate(one.sources):
            if not keys.previous(source):
                said.append(f"{one.source_name(number)}: has no previous value to ask for")
                continue
            try:
                said.append(f"{one.source_name(number)}: {rotate_source(one, number)}")
            except Interrupted:
                raise
            except CryptpilotError as error:
                failures.append(CryptpilotError(f"{named(one, number)}: {error.what}", error.hint))
        if failures:
            raise CryptpilotError("; ".join(error.what for error in failures), failures[0].hint)
        return "; ".join(said)

    def rotate_source(one: Volume, number: int) -> str:
        source = one.sources[number]
        previous = keys.previous(source)
        if previous is None:
            raise _nothing_to_rotate(one)
        changed = rotate_volume(one, question(one, source, terms), question(one, previous, terms))
        if not changed:
            return (
                f"{one.dev} has nothing to rotate: it takes the current value of its secret, and not the previous one"
            )
        return f"{one.dev} is rotated: only the current value of its secret opens it now"

    with terms_of(config) as terms:
        return each(select(config, names), rotate_one, report)


def _nothing_to_rotate(one: Volume) -> CryptpilotError:
    """Say why a volume's secret has no previous value, and what can be done."""
    if one.temporary:
        return CryptpilotError(
            "has nothing to rotate: it is temporary, with a new one-time password at each open",
            f"for a new one now: cryptpilot close {one.volume}, cryptpilot open {one.volume}; what it holds is lost",
        )
    provider = keys.describe(one.encrypt)["provider"]
    return CryptpilotError(
        f"cannot be rotated: {provider} has no previous value to ask for",
        f"for a new key that is sealed: cryptpilot enroll {one.volume} encrypt"
        if table.is_on_device(one.encrypt)
        else f"by hand: cryptsetup luksAddKey {one.dev}; have the new key come from {provider}; cryptpilot config"
        f" check; then cryptsetup luksRemoveKey {one.dev}",
    )
