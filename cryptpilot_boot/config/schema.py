"""What may stand in a configuration file: one table a section, one check a key."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.config import client_key, kms_text, names, pem
from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.config.elsewhere import require_known_provider
from cryptpilot_boot.config.misplaced import Section, require_in_place
from cryptpilot_boot.config.model import (
    FILE_SYSTEMS,
    SECRET_ARN,
    SECTOR_SIZES,
    Boot,
    Encrypt,
    Exec,
    Identity,
    Kms,
    KmsRole,
    Otp,
    Volume,
)
from cryptpilot_boot.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A key as TOML has it without quotes: any other that is not known is a slip, and what it says is nobody's business.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


def _file_system(name: str) -> str:
    if name in FILE_SYSTEMS:
        return ""
    return f"must be one of {', '.join(FILE_SYSTEMS)}{_did_you_mean(name, FILE_SYSTEMS)}"


def _sector_size(size: int) -> str:
    return "" if size in SECTOR_SIZES else f"must be {' or '.join(map(str, SECTOR_SIZES))} (bytes)"


def _auth_mode(name: str) -> str:
    if name in _KMS_MODES:
        return ""
    return f"must be one of {', '.join(_KMS_MODES)}{_did_you_mean(name, _KMS_MODES)}"


def _timeout(seconds: int) -> str:
    return "" if 1 <= seconds <= 3600 else "must be between 1 and 3600 seconds"


def _patience(seconds: int) -> str:
    return "" if 0 <= seconds <= 3600 else "must be between 0 and 3600 seconds"


def _uuid(text: str) -> str:
    return "" if UUID.fullmatch(text) else "must be a UUID, in lower case"


def _digests(texts: list[str]) -> str:
    if texts and all(_SHA256.fullmatch(text) for text in texts) and len(set(texts)) == len(texts):
        return ""
    return "must be one or more different SHA-256 digests, each 64 hexadecimal digits in lower case"


def _any(_: object) -> str:
    return ""


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A type of TOML values: what it is called, which values are of it, and what it becomes in `config.model`."""

    words: str
    holds: Callable[[object], bool]
    make: Callable[[Any], object] = lambda value: value


_STRING = _Kind("a string", lambda value: isinstance(value, str))
_PEM = _Kind("a string", _STRING.holds, pem.canonical)
_CLIENT_KEY = _Kind("a string", _STRING.holds, client_key.canonical)
_PASSWORD = _Kind("a string", _STRING.holds, client_key.canonical_password)
_STRINGS = _Kind(
    "a list of strings",
    lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    tuple,
)
_BOOL = _Kind("true or false", lambda value: isinstance(value, bool))
# bool is a subclass of int, and must not pass for one
_NUMBER = _Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
_TABLE = _Kind("a table", lambda value: isinstance(value, dict))


@dataclasses.dataclass(frozen=True)
class _Key:
    """One key: its type, what else must hold ("" or the complaint), and whether it must be there."""

    kind: _Kind
    check: Callable[[Any], str] = _any
    required: bool = False


_GLOBAL = {"boot": _Key(_TABLE)}
_BOOT = {
    "verbose": _Key(_BOOL),
    "timeout": _Key(_NUMBER, _timeout),
    "late_after": _Key(_NUMBER, _patience),
    "emergency_shell": _Key(_BOOL),
}
_VOLUME = {
    "volume": _Key(_STRING, names.volume, required=True),
    "dev": _Key(_STRING, names.device, required=True),
    "auto_open": _Key(_BOOL),
    "initrd": _Key(_BOOL),
    "required": _Key(_BOOL),
    "makefs": _Key(_STRING, _file_system),
    "integrity": _Key(_BOOL),
    "sector_size": _Key(_NUMBER, _sector_size),
    "discard": _Key(_BOOL),
    "encrypt": _Key(_TABLE, required=True),
}
_IDENTITY = {
    "uuid": _Key(_STRING, _uuid),
    "volume_keys": _Key(_STRINGS, _digests, required=True),
}
_AUTH_MODE = _Key(_STRING, _auth_mode)
# By auth_mode, the default first; a key that is not here is none of KMS.
_KMS_MODES: dict[str, tuple[type, dict[str, _Key]]] = {
    "client_key": (
        Kms,
        {
            "auth_mode": _AUTH_MODE,
            "kms_instance_id": _Key(_STRING, kms_text.instance_id, required=True),
            "secret_name": _Key(_STRING, kms_text.secret_name, required=True),
            "client_key": _Key(_CLIENT_KEY, kms_text.client_key, required=True),
            "client_key_password": _Key(_PASSWORD, client_key.password_complaint, required=True),
            "kms_cert_pem": _Key(_PEM, kms_text.certificates, required=True),
            "endpoint": _Key(_STRING, names.endpoint),
        },
    ),
    "ecs_ram_role": (
        KmsRole,
        {
            "auth_mode": _AUTH_MODE,
            "kms_instance_id": _Key(_STRING, kms_text.instance_id),
            "secret_name": _Key(_STRING, kms_text.secret_name_or_arn, required=True),
            "ecs_ram_role_name": _Key(_STRING, kms_text.role_name),
            "region_id": _Key(_STRING, kms_text.region_id),
            "endpoint": _Key(_STRING, names.endpoint),
            "kms_cert_pem": _Key(_PEM, kms_text.authority),
        },
    ),
}
_PROVIDERS: dict[str, tuple[type, dict[str, _Key]]] = {
    "otp": (Otp, {}),
    "kms": _KMS_MODES["client_key"],
    "exec": (
        Exec,
        {
            "command": _Key(_STRING, names.program, required=True),
            "args": _Key(_STRINGS, names.arguments),
            "timeout": _Key(_NUMBER, _timeout),
        },
    ),
}
_ENCRYPT = {provider: _Key(_TABLE) for provider in _PROVIDERS}
_KMS = {name for _, keys in _KMS_MODES.values() for name in keys}
# Where each key stands, to tell where one belongs that stands elsewhere. By the name of the table, "" above the first.
_VOLUME_FILE: dict[str, Section] = {
    "": Section("the volume", _VOLUME),
    "encrypt": Section("[encrypt]", _ENCRYPT),
    **{f"encrypt.{name}": Section(f"[encrypt.{name}]", keys) for name, (_, keys) in _PROVIDERS.items()},
    "encrypt.kms": Section("[encrypt.kms]", _KMS),
}
_GLOBAL_FILE: dict[str, Section] = {
    "": Section("global.toml", _GLOBAL),
    "boot": Section("[boot] of global.toml", _BOOT),
}


def boot(document: Document) -> Boot:
    """Turn global.toml into its value."""
    require_in_place(document, _GLOBAL_FILE, _VOLUME_FILE)
    sections = _checked(document, "", _GLOBAL, document.data)
    return Boot(**_checked(document, "boot", _BOOT, sections.get("boot", {})))


def volume(document: Document) -> Volume:
    """Turn a file of volumes/ into its value."""
    encrypt = document.data.get("encrypt")
    if isinstance(encrypt, dict):
        require_known_provider(document, encrypt)
    require_in_place(document, _VOLUME_FILE, _GLOBAL_FILE)
    values = _checked(document, "", _VOLUME, document.data)
    if values.get("integrity") and values.get("discard"):
        raise ConfigError(
            f'{document.path}{line_of(document.text, "", "discard")}: "discard" cannot be true with integrity = true:'
            " a block that was discarded has no valid tag",
            'remove "discard"; or, on a volume that is still to be initialized, remove "integrity"',
        )
    provider = _encrypt(document, values.pop("encrypt"))
    return Volume(encrypt=provider, source=document.path, **values)


def identity(document: Document) -> Identity:
    """Turn a file of identities/ into its value."""
    values = _checked(document, "", _IDENTITY, document.data)
    return Identity(values.get("uuid", ""), frozenset(values["volume_keys"]), document.path)


def _encrypt(document: Document, data: dict[str, Any]) -> Encrypt:
    _checked(document, "encrypt", _ENCRYPT, data)
    if len(data) != 1:
        tables = ", ".join(f"[encrypt.{provider}]" for provider in _PROVIDERS)
        found = "none of them" if not data else f"{len(data)} of them"
        raise ConfigError(f"{document.path}: exactly one of {tables} is needed, found {found}")
    ((provider, values),) = data.items()
    make, keys = _kms_mode(document, values) if provider == "kms" else _PROVIDERS[provider]
    checked = _checked(document, f"encrypt.{provider}", keys, values)
    checked.pop("auth_mode", None)
    _require_one_region(document, checked)
    made: Encrypt = make(**checked)
    return made


def _require_one_region(document: Document, values: Mapping[str, Any]) -> None:
    """Raise ConfigError when a secret's full name and the file name two regions."""
    full = SECRET_ARN.fullmatch(values.get("secret_name", ""))
    if full and values.get("region_id", full["region"]) != full["region"]:
        where = f"{document.path}{line_of(document.text, 'encrypt.kms', 'region_id')}"
        raise ConfigError(
            f'{where}: "encrypt.kms.region_id" must be the region in secret_name, {full["region"]}',
            "remove it: the full name of a secret has its region",
        )


def _kms_mode(document: Document, values: Mapping[str, Any]) -> tuple[type, dict[str, _Key]]:
    """Return what `[encrypt.kms]` is with its auth_mode; raise ConfigError for a key of another mode's."""
    section = "encrypt.kms"
    chosen = {name: value for name, value in values.items() if name == "auth_mode"}
    _checked(document, section, {"auth_mode": _AUTH_MODE}, chosen)
    mode = chosen.get("auth_mode", next(iter(_KMS_MODES)))
    _, keys = _KMS_MODES[mode]
    for name in values:
        others = [other for other, (_, known) in _KMS_MODES.items() if name in known and name not in keys]
        if others:
            where = f"{document.path}{line_of(document.text, section, name)}"
            said = f'auth_mode = "{mode}"' if chosen else f'auth_mode left out, which means "{mode}"'
            raise ConfigError(
                f'{where}: "{section}.{name}" has no meaning with {said}',
                f'remove it, or set auth_mode = "{others[0]}"',
            )
    return _KMS_MODES[mode]


def _checked(document: Document, section: str, keys: Mapping[str, _Key], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a section; raise ConfigError on the first thing in `data` that `keys` does not allow."""
    values = {}
    for name, value in data.items():
        where = f"{document.path}{line_of(document.text, section, name)}: "
        full = f"{section}.{name}" if section else name
        if name not in keys:
            kind = "table" if isinstance(value, dict) else "key"
            quoted = f' "{full}"' if _BARE_KEY.fullmatch(name) else ""
            known = f"known here: {', '.join(keys)}" if keys else "no key may stand here"
            raise ConfigError(f"{where}unknown {kind}{quoted}{_did_you_mean(name, keys)}", known)
        key = keys[name]
        if not key.kind.holds(value):
            raise ConfigError(f'{where}"{full}" must be {key.kind.words}')
        complaint = key.check(value)
        if complaint:
            raise ConfigError(f'{where}"{full}" {complaint}')
        values[name] = key.kind.make(value)
    for name, key in keys.items():
        if key.required and name not in data:
            where = f" in [{section}]" if section else ""
            near = _did_you_mean(name, [other for other in data if other not in keys and _BARE_KEY.fullmatch(other)])
            raise ConfigError(f'{document.path}: missing key "{name}"{where}{near}')
    return values


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f' (did you mean "{near}"?)' if near else ""
