"""LUKS2 headers as no program writes them: a real one taken apart, changed, and put together with a right checksum.

That is what somebody can do who has the disk, but not the passphrase.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from pathlib import Path

BINARY = 4096
SECOND = 16384
"""Where the second copy of the metadata is in a header of the usual size."""
SLOTS = 32768
"""Where the key slots begin then."""
DATA = 16 << 20

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Fields:
    """The binary fields of a copy of the metadata that tests change."""

    size: int = SECOND
    seqid: int = 10
    version: int = 2
    algorithm: bytes = b"sha256"
    subsystem: bytes = b"cryptpilot"
    label: bytes = b""


@dataclasses.dataclass(frozen=True)
class Template:
    """A real header. image: the disk it is on; metadata: its JSON."""

    image: Path
    metadata: Json

    @classmethod
    def made(cls, image: Path, key: bytes) -> Template:
        """Make a disk with a header as `cryptpilot init` has it made."""
        with image.open("wb") as file:
            file.truncate(32 << 20)
        subprocess.run(
            [
                *("cryptsetup", "luksFormat", "--batch-mode", "--type=luks2", "--pbkdf=pbkdf2"),
                *("--pbkdf-force-iterations=1000", "--cipher=aes-xts-plain64", "--key-size=512", "--sector-size=4096"),
                *("--subsystem=cryptpilot", "--key-file=-", image),
            ],
            input=key,
            check=True,
        )
        return cls.of(image)

    @classmethod
    def of(cls, image: Path) -> Template:
        """Read a disk's header."""
        with image.open("rb") as file:
            text = file.read(SECOND)[BINARY:].split(b"\0", 1)[0]
        return cls(image, json.loads(text))

    def copied(self, path: Path) -> Path:
        """Make a disk that is a copy of this one, which takes a tenth of what making one takes."""
        subprocess.run(["cp", "--sparse=always", self.image, path], check=True)
        return path

    def changed(self, change: Callable[[Json], object]) -> bytes:
        """Return the JSON with something changed in it."""
        metadata = copy.deepcopy(self.metadata)
        change(metadata)
        return json.dumps(metadata).encode()

    def copy(self, text: bytes | None = None, *, second: bool = False, **fields: Any) -> bytes:
        """Return one copy of the metadata with other JSON and other fields, and a checksum that is right.

        fields: of `Fields`.
        """
        values = Fields(**fields)
        with self.image.open("rb") as file:
            content = bytearray(file.read(BINARY))
        place = values.size if second else 0
        content[:8] = (b"SKUL" if second else b"LUKS") + b"\xba\xbe" + values.version.to_bytes(2, "big")
        content[0x8:0x10] = values.size.to_bytes(8, "big")
        content[0x10:0x18] = values.seqid.to_bytes(8, "big")
        content[0x18:0x48] = values.label.ljust(48, b"\0")
        content[0x48:0x68] = values.algorithm.ljust(32, b"\0")
        content[0xD0:0x100] = values.subsystem.ljust(48, b"\0")
        content[0x100:0x108] = place.to_bytes(8, "big")
        content += (json.dumps(self.metadata).encode() if text is None else text).ljust(values.size - BINARY, b"\0")
        return bytes(with_checksum(content))

    def both(self, text: bytes | None = None, **fields: Any) -> dict[int, bytes]:
        """Return both copies of the metadata, by where they belong."""
        first, second = (self.copy(text, second=second, **fields) for second in (False, True))
        return {0: first, len(first): second}

    def put(self, pieces: dict[int, bytes], path: Path, size: int = DATA + (1 << 20)) -> Path:
        """Make a disk with the real header's key slots, and pieces of another header at their places."""
        with self.image.open("rb") as source:
            source.seek(SLOTS)
            slots = source.read(512 << 10)
        with path.open("wb") as target:
            target.truncate(size)
            for place, piece in {SLOTS: slots, **pieces}.items():
                target.seek(place)
                target.write(piece)
            target.truncate(size)
        return path


def with_checksum(content: bytes | bytearray) -> bytearray:
    """Set the checksum of a copy of the metadata, by the algorithm it names if there is such a one."""
    content = bytearray(content)
    content[0x1C0:0x200] = bytes(64)
    algorithm = bytes(content[0x48:0x68]).split(b"\0", 1)[0].decode("ascii", "replace")
    try:
        digest = hashlib.new(algorithm, content).digest()
    except (TypeError, ValueError):
        digest = b""
    content[0x1C0:0x200] = digest[:64].ljust(64, b"\0")
    return content


def segment(metadata: Json) -> Json:
    """Return the data segment."""
    found: Json = metadata["segments"]["0"]
    return found


def slot_area(metadata: Json) -> Json:
    """Return the place of the key slot."""
    found: Json = metadata["keyslots"]["0"]["area"]
    return found


def set_cipher(metadata: Json, cipher: object) -> None:
    """Name another cipher for the data."""
    segment(metadata)["encryption"] = cipher


def set_slot_cipher(metadata: Json, cipher: object) -> None:
    """Name another cipher for the key slot (CVE-2025-59054, when that is none)."""
    slot_area(metadata)["encryption"] = cipher


def authenticate(metadata: Json) -> None:
    """Have the header say that the data are authenticated, as `init` does with integrity = true."""
    segment(metadata)["integrity"] = {
        "type": "hmac(sha256)",
        "journal_encryption": "none",
        "journal_integrity": "none",
    }
    for slot in metadata["keyslots"].values():
        slot["key_size"] = 96
        slot["area"]["size"] = "385024"


def make_linear(metadata: Json) -> None:
    """Have the data taken as they are on the disk."""
    metadata["segments"]["0"] = {"type": "linear", "offset": str(DATA), "size": "dynamic"}


def add_linear(metadata: Json) -> None:
    """Have a first part of the data encrypted, and the rest taken as it is on the disk."""
    segment(metadata)["size"] = "4096"
    metadata["segments"]["1"] = {"type": "linear", "offset": str(DATA + 4096), "size": "dynamic"}


def hide_cipher(text: bytes) -> bytes:
    """Name another cipher for the data by a key that ends at a NUL for those to whom strings end there."""
    good = b'"encryption": "aes-xts-plain64", "sector_size"'
    bad = b'"encryption": "aes-xts-plain64", "encryption\\u0000": "cipher_null-ecb", "sector_size"'
    assert text.count(good) == 1
    return text.replace(good, bad)


def double_cipher(text: bytes) -> bytes:
    """Name two ciphers for the data, by one key."""
    good = b'"encryption": "aes-xts-plain64", "sector_size"'
    bad = b'"encryption": "cipher_null-ecb", "encryption": "aes-xts-plain64", "sector_size"'
    assert text.count(good) == 1
    return text.replace(good, bad)


def open_to_all(template: Template, **fields: Any) -> dict[int, bytes]:
    """Make a header with a volume key of one's own, in a key slot that any passphrase opens (CVE-2025-59054)."""
    key = bytes(range(64))

    def change(metadata: Json) -> None:
        set_slot_cipher(metadata, "cipher_null-ecb")
        digest = metadata["digests"]["0"]
        salt = base64.b64decode(digest["salt"])
        made = hashlib.pbkdf2_hmac(digest["hash"], key, salt, digest["iterations"], dklen=32)
        digest["digest"] = base64.b64encode(made).decode()

    stripes = template.metadata["keyslots"]["0"]["af"]["stripes"]
    return {**template.both(template.changed(change), **fields), SLOTS: split(key, stripes)}


def split(key: bytes, stripes: int) -> bytes:
    """Split a key as LUKS does (with sha256), though with zeros in place of chance: the last part is what matters."""
    state = bytes(len(key))
    for _ in range(stripes - 1):
        blocks = [state[at : at + 32] for at in range(0, len(state), 32)]
        state = b"".join(
            hashlib.sha256(number.to_bytes(4, "big") + block).digest() for number, block in enumerate(blocks)
        )
    return bytes(len(key) * (stripes - 1)) + bytes(one ^ other for one, other in zip(state, key))


def guess_a_key(template: Template, guess: int, salt: bytes) -> dict[int, bytes]:
    """Make a header that needs no secret: 32 key slots of one byte each, one of which any passphrase may hit.

    guess: the byte that is to be the volume key. salt: changes which passphrases hit it.
    """
    encoded = base64.b64encode(salt).decode()
    digest = base64.b64encode(hashlib.pbkdf2_hmac("sha256", bytes([guess]), salt, 1000, dklen=32)).decode()

    def change(metadata: Json) -> None:
        (slot,) = metadata["keyslots"].values()
        metadata["keyslots"] = {}
        for number in range(32):
            area = {**slot["area"], "offset": str(SLOTS + 4096 * number), "size": "4096"}
            kdf = {**slot["kdf"], "salt": base64.b64encode(hashlib.sha256(salt + bytes([number])).digest()).decode()}
            metadata["keyslots"][str(number)] = {**slot, "key_size": 1, "area": area, "kdf": kdf}
        set_cipher(metadata, "arc4-ecb")
        segment(metadata)["sector_size"] = 512
        metadata["digests"]["0"].update(keyslots=list(metadata["keyslots"]), salt=encoded, digest=digest)

    return template.both(template.changed(change))
