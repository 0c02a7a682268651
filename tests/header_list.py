"""What a LUKS2 header may say: the list of system.luks_metadata once more, written apart from the product's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.headers import Json

# Patterns over the members of a header, written one a line.
_NUMBER, _SALT = "(0|[1-9][0-9]*)", "[A-Za-z0-9+/]{43}="
_LISTED = [
    "keyslots/N/type=(luks2|reencrypt)",
    "keyslots/N/key_size=(64|96|1)",
    "keyslots/N/af/type=luks1",
    "keyslots/N/af/stripes=4000",
    "keyslots/N/af/hash=sha(256|512)",
    "keyslots/N/area/type=(raw|checksum|journal|none)",
    f"keyslots/N/area/(offset|size)={_NUMBER}",
    "keyslots/N/area/encryption=aes-xts-plain64",
    "keyslots/N/area/key_size=64",
    "keyslots/N/area/hash=sha(256|512)",
    "keyslots/N/area/sector_size=(512|4096)",
    "keyslots/N/kdf/type=(pbkdf2|argon2id?)",
    "keyslots/N/kdf/hash=sha(256|512)",
    f"keyslots/N/kdf/(iterations|time|memory|cpus)={_NUMBER}",
    f"keyslots/N/kdf/salt={_SALT}",
    "keyslots/N/mode=reencrypt",
    "keyslots/N/direction=(forward|backward)",
    "keyslots/N/priority=0",
    "segments/N/type=crypt",
    f"segments/N/(offset|iv_tweak)={_NUMBER}",
    f"segments/N/size=(dynamic|{_NUMBER})",
    "segments/N/encryption=aes-xts-plain64",
    "segments/N/sector_size=(512|4096)",
    r"segments/N/integrity/type=hmac\(sha256\)",
    "segments/N/integrity/journal_(encryption|integrity)=none",
    "segments/N/flags/N=backup-(previous|final)",
    "digests/N/type=pbkdf2",
    f"digests/N/(keyslots|segments)/N={_NUMBER}",
    "digests/N/hash=sha(256|512)",
    f"digests/N/iterations={_NUMBER}",
    f"digests/N/salt={_SALT}",
    "digests/N/digest=([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)",
    f"config/(json_size|keyslots_size)={_NUMBER}",
    "config/requirements/mandatory/N=online-reencrypt-v2",
]
_LIST = re.compile("|".join(line.replace("/N", "/[0-9]{1,2}") for line in _LISTED))
# Of numbers, by the last part of their place: the least and the most.
_BOUNDS = {
    "iterations": (1000, 20_000_000),
    "time": (4, 65536),
    "memory": (32, 1 << 20),
    "cpus": (1, 4),
    "keyslots_size": (258048, 128 << 20),
}


def require_listed(metadata: Json) -> None:
    """Require that a header says nothing but what is allowed."""
    lines = list(_lines(metadata, ""))
    for line in lines:
        assert _LIST.fullmatch(line), line
        place, _, value = line.rpartition("=")
        least, most = _BOUNDS.get(place.rpartition("/")[2], (0, 1 << 63))
        assert not value.isdigit() or least <= int(value) <= most, line
    assert any(line.startswith("keyslots/") for line in lines)
    assert any(line.startswith("segments/") for line in lines)
    assert metadata["tokens"] == {}
    authenticated = any("integrity" in one for one in metadata["segments"].values())
    sizes = {slot["key_size"] for slot in metadata["keyslots"].values() if slot["type"] == "luks2"}
    assert sizes == {96 if authenticated else 64}


def _lines(value: object, place: str) -> Iterator[str]:
    """Write the members of an object one a line, as path=value."""
    inner = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else None
    if inner is None:
        yield f"{place}={value}"
        return
    for name, one in inner:
        yield from _lines(one, f"{place}/{name}" if place else str(name))
