"""Key providers: each returns a passphrase.

`prepare` does all that needs no network (imports, parsing the client key), so that it can be done while the
network comes up; what it returns asks for the passphrase. Whether asking again makes sense is decided in
`keys.retry` alone.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.config import Encrypt, Exec, Kms, KmsRole, Otp
from cryptpilot_boot.config.model import CURRENT, PREVIOUS, SECRET_ARN
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.keys import execute, expiry, floor, otp
from cryptpilot_boot.keys.retry import Ask, ask_until
from cryptpilot_boot.keys.shared import Answers
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import clock as system_clock
from cryptpilot_boot.system.programs import is_there

if TYPE_CHECKING:
    import datetime

__all__ = [
    "Answers",
    "Ask",
    "Passphrase",
    "ask_until",
    "describe",
    "ending",
    "ends",
    "prepare",
    "previous",
    "require_usable",
    "share",
]


def prepare(encrypt: Encrypt) -> Ask:
    """Get everything ready to ask for the passphrase of a volume with this `[encrypt]` section.

    In an initrd the clock is held to the image's time before each question. Raises KeyFetchError when the credentials
    are unusable.
    """
    ask = _PREPARE[encrypt.provider](encrypt)
    # nobody is asked for a one-time password, at whatever time
    return ask if isinstance(encrypt, Otp) else floor.after_the_image(ask)


def require_usable(encrypt: Encrypt) -> None:
    """Raise CryptpilotError for what would keep this section from giving a passphrase, without asking for one."""
    if isinstance(encrypt, Exec):
        execute.require_runnable(encrypt)


def ends(encrypt: Encrypt) -> datetime.datetime | None:
    """Return when what this section asks with ends; None where it does not, or nothing says so that can be trusted.

    Touches no network. A client key that cannot be opened says nothing: `prepare` says what is wrong with it.
    """
    if not isinstance(encrypt, Kms):
        return None
    from cryptpilot_boot.keys import client_key  # a tenth of a second of imports, as below

    try:
        return client_key.opened(encrypt).ends
    except KeyFetchError:
        return None


def ending(encrypt: Encrypt) -> expiry.Notice | None:
    """Return what to say of the end of what this section asks with, as the clock has it; None while that is far.

    At boot, ask only once KMS has given the secret out: it tolerates a clock that is 15 minutes off, and no other.
    """
    return expiry.notice(ends(encrypt), system_clock.now())


def previous(encrypt: Encrypt) -> Encrypt | None:
    """Return where the value comes from that a secret had before it was rotated; None where nobody keeps that."""
    staged: Any = encrypt
    return dataclasses.replace(staged, stage=PREVIOUS) if hasattr(staged, "stage") else None


def share(one: Encrypt, other: Encrypt) -> bool:
    """Tell whether two volumes have their passphrase from the same secret, as far as the configuration shows."""
    return isinstance(one, (Exec, Kms, KmsRole)) and _secret(one) == _secret(other)


def _secret(encrypt: Encrypt) -> tuple[object, ...]:
    """Return what tells the secret of a provider from others of it; how it is asked for does not matter."""
    if isinstance(encrypt, Exec):
        return encrypt.command, encrypt.args
    if isinstance(encrypt, (Kms, KmsRole)):
        full = SECRET_ARN.fullmatch(encrypt.secret_name)
        return (full["name"] if full else encrypt.secret_name,)
    return ()


def describe(encrypt: Encrypt) -> dict[str, str]:
    """Say where the passphrase comes from: the provider, and what a person needs to find the secret."""
    return _DESCRIBE[encrypt.provider](encrypt)


def _prepare_kms(encrypt: Kms | KmsRole) -> Ask:
    # a tenth of a second of imports each, which other volumes do without
    if isinstance(encrypt, KmsRole):
        from cryptpilot_boot.keys import kms_role

        return kms_role.prepare(encrypt)
    from cryptpilot_boot.keys import kms

    return kms.prepare(encrypt)


def _describe_kms(encrypt: Kms | KmsRole) -> dict[str, str]:
    which = f'secret "{encrypt.secret_name}"' + ("" if encrypt.stage == CURRENT else f", {encrypt.stage}")
    if isinstance(encrypt, KmsRole):
        role = f"RAM role {encrypt.ecs_ram_role_name}" if encrypt.ecs_ram_role_name else "the instance's RAM role"
        whose = f"KMS instance {encrypt.instance}" if encrypt.instance else "KMS"
        return {
            "provider": f"{whose} with {role}, {which}",
            "endpoint": _with_port(encrypt.address_in(encrypt.region or "<region>")),
        }
    return {
        "provider": f"KMS instance {encrypt.kms_instance_id}, {which}",
        "endpoint": _with_port(encrypt.address),
    }


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:443"


def _describe_exec(encrypt: Exec) -> dict[str, str]:
    # not its arguments, which may be secret, nor those that stand in its place by mistake
    first, blank, _ = encrypt.command.partition(" ")
    name = f"{first} ..." if blank and not is_there(encrypt.command) else encrypt.command
    return {"provider": f"command {name}"}


_PREPARE: dict[str, Callable[[Any], Ask]] = {
    "otp": lambda _: otp.ask,
    "kms": _prepare_kms,
    "exec": execute.prepare,
}
_DESCRIBE: dict[str, Callable[[Any], dict[str, str]]] = {
    "otp": lambda _: {"provider": "one-time password"},
    "kms": _describe_kms,
    "exec": _describe_exec,
}
