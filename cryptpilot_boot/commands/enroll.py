"""`cryptpilot enroll`: a volume takes the secret of another of its sources, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import new_key_of, terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, WrongSecret, nearest, printable
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.keys.secret import Known, Sources
from cryptpilot_boot.providers import table
from cryptpilot_boot.system import process
from cryptpilot_boot.volume.enroll import enroll_source
from cryptpilot_boot.volume.recovery import require_persistent, wrong_key
from cryptpilot_boot.volume.sealing import seal
from cryptpilot_boot.volume.slots import UNKNOWN

if TYPE_CHECKING:
    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.volume.slots import Older


def enroll(
    config: Config, name: str, source: str, report: Report, ask_key: Callable[[str], Passphrase] | None = None
) -> bool:
    """Give a volume a key slot for one of its sources; True when it has one, also if another run enrolled it.

    source: "encrypt", "fallback1", ..., or the name of a key provider that only one source has. ask_key: asks a person
    for the recovery key, in place of asking the other sources.
    """
    (one,) = select(config, [name])
    try:
        require_persistent(one)
        number = numbered(one, source)
    except CryptpilotError as error:
        report(one, error)
        return False
    known = None
    if ask_key:
        process.lock_memory()
        known = ask_key(name)

    def enroll_one(_: Volume) -> str:
        secret = Known(known) if known else Sources(one, terms)
        try:
            return enroll_by(secret, new_key_of(one, number, terms))
        except WrongSecret:
            if known is None:
                raise
            raise wrong_key(one) from None

    def enroll_by(secret: Secret, make: Asked) -> str:
        if table.is_on_device(one.sources[number]):
            return _sealed(one, number, seal(one, secret, make, first=number == 0))
        new = enroll_source(one, make, secret)
        return f"{named(one, number)} opens it{'' if new else ' already'}"

    try:
        with terms_of(config) as terms:
            return each([one], enroll_one, report)
    finally:
        if known:
            known.wipe()


def _sealed(one: Volume, number: int, older: Older) -> str:
    """Say that a new key was sealed, and what became of older ones."""
    said = f"a new key of {named(one, number)} opens it{', and the older one no longer does' if older.removed else ''}"
    return said + older.remark("sealed key", f"see which slots your keys take before you remove it: {UNKNOWN}")


def numbered(one: Volume, source: str) -> int:
    """Return the number of the source that a person names. Raises CryptpilotError."""
    names = [one.source_name(number) for number in range(len(one.sources))]
    providers = [encrypt.provider for encrypt in one.sources]
    if source in names:
        return names.index(source)
    if providers.count(source) == 1:
        return providers.index(source)
    if source in providers:
        said = " and ".join(name for name, provider in zip(names, providers) if provider == source)
        raise CryptpilotError(f'has several sources of the kind "{source}": {said}', "name one of these")
    # the TPM's errors say "tpm2", and know of no other value that is needed beside it
    made_of = [n for n, encrypt in enumerate(one.sources) if source in (of.provider for of in table.parts(encrypt))]
    if len(made_of) == 1:
        return made_of[0]
    near = nearest(source, [*names, *providers])
    known = ", ".join(named(one, number) for number in range(len(one.sources)))
    raise CryptpilotError(
        f'has no source "{printable(source)}"{f" (did you mean {near}?)" if near else ""}',
        f"its sources: {known}; write a further one into {one.source} as [[fallback]] first",
    )
