"""Changed LUKS2 headers by the hundred thousand: `make fuzz`.

Each is changed at random from one that cryptsetup made, and read as the product reads a disk. What it takes must be on
the list that tests/header_list.py holds, and cryptsetup must find in the product's copy what the product found, to the
letter. The seed makes a run repeatable: `make fuzz FUZZ="100000 7"` for so many mutants from the seed 7.
"""

from __future__ import annotations

import collections
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import luks_header
from tests import headers
from tests.header_list import require_listed
from tests.headers import BINARY, SECOND, Template

if TYPE_CHECKING:
    from collections.abc import Iterator

MUTANTS = 100_000
SEED = 11
IN_MEMORY = "/dev/shm"  # noqa: S108 - a directory of its own is made in it
KEY = bytes(range(64))
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 64, 96, 1000, 4000.0, 1 << 32, 1 << 70, "", "x", "0", "1", "-1", "00", "4096"),
    *(str(1 << 63), "16384", "16777216", "dynamic", [], {}, [[]], ["0"], ["0", "1"], {"0": {}}, "linear", "crypt"),
    *("cipher_null-ecb", "aes-xts-plain64", "aes-xts-plain64\u0000", "AES-XTS-PLAIN64", "aes-xts-plain", "arc4-ecb"),
    *(
        "hmac(sha256)",
        "crc32c",
        "none",
        "luks2",
        "reencrypt",
        "raw",
        "datashift",
        "pbkdf2",
        "argon2id",
        "sha1",
        "sha512",
    ),
    *("online-reencrypt-v2", "backup-final", "in-reencryption", "\x1b[0m", "\ud800", "A" * 43 + "="),
]


def templates(work: Path) -> list[Template]:
    """Return headers as they are found on disks: plain, stretched, with integrity, being reencrypted."""
    plain = Template.made(work / "plain.img", KEY)
    stretched = Template.made(work / "stretched.img", KEY)
    cost = ("--pbkdf=argon2id", "--pbkdf-memory=64", "--pbkdf-force-iterations=4", "--pbkdf-parallel=1")
    _cryptsetup("luksAddKey", *cost, str(stretched.image), "-")
    reencrypted = Template.made(work / "reencrypted.img", KEY)
    cheap = ("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000")
    _cryptsetup("reencrypt", "--init-only", *cheap, str(reencrypted.image))
    protected = copy.deepcopy(plain.metadata)
    headers.authenticate(protected)
    return [plain, Template.of(stretched.image), Template(plain.image, protected), Template.of(reencrypted.image)]


def _cryptsetup(*arguments: str) -> None:
    command = ["cryptsetup", *arguments[:1], "--batch-mode", "--key-file=-", *arguments[1:]]
    if arguments[-1] == "-":
        with tempfile.NamedTemporaryFile() as key:
            key.write(b"another key")
            key.flush()
            subprocess.run([*command[:-1], key.name], input=KEY, check=True)
    else:
        subprocess.run(command, input=KEY, check=True)


def mutant(chance: random.Random, template: Template) -> dict[int, bytes]:
    """Return the pieces of a changed header, by their places."""
    texts = [_text(chance, template.metadata) if chance.random() < 0.8 else None for _ in range(2)]
    if chance.random() < 0.7:
        texts[1] = texts[0]
    pieces = {
        0: template.copy(texts[0], seqid=chance.randrange(20)),
        SECOND: template.copy(texts[1], second=True, seqid=chance.randrange(20)),
    }
    if chance.random() < 0.2:
        place = chance.choice(list(pieces))
        pieces[place] = _flipped(chance, pieces[place])
    return pieces


def _text(chance: random.Random, metadata: headers.Json) -> bytes:
    changed = copy.deepcopy(metadata)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _change(chance, changed)
    text = json.dumps(changed).encode()
    if chance.random() < 0.05:
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice((b"", b"\0", b"}", b'"', b",", b"\xff")) + text[place + 1 :]
    return text[: SECOND - BINARY]


def _change(chance: random.Random, metadata: headers.Json) -> None:
    """Change one member of an object somewhere in a header."""
    objects = list(_objects(metadata))
    target = chance.choice(objects)
    names = list(target)
    name = (
        chance.choice(names) if names and chance.random() < 0.9 else chance.choice(("flags", "priority", "x", "0", "7"))
    )
    what = chance.random()
    if what < 0.15:
        target.pop(name, None)
    elif what < 0.3:
        target[chance.choice(("1", "31", "32", "01", "x", name + "\0"))] = copy.deepcopy(target.get(name))
    elif what < 0.45:
        target[name] = copy.deepcopy(chance.choice(objects))
    elif what < 0.6 and isinstance(target.get(name), (int, str)):
        target[name] = _near(chance, target[name])
    else:
        target[name] = copy.deepcopy(chance.choice(VALUES))


def _near(chance: random.Random, value: int | str) -> int | str:
    """Return a value that is nearly another."""
    number = int(value) if isinstance(value, int) or value.isdigit() else None
    if number is None:
        place = chance.randrange(len(str(value)) + 1)
        return f"{str(value)[:place]}{chance.choice(('', 'x', '=', ' '))}{str(value)[place + 1 :]}"
    near = chance.choice((number + 1, number - 1, number + 4096, number * 2, number * 10, number // 2, -number))
    return near if isinstance(value, int) else str(near)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)


def _flipped(chance: random.Random, piece: bytes) -> bytes:
    content = bytearray(piece)
    for _ in range(chance.randrange(1, 4)):
        content[chance.randrange(chance.choice((0x1C0, BINARY + 1200)))] = chance.randrange(256)
    return bytes(headers.with_checksum(content) if chance.random() < 0.7 else content)


def main(mutants: int = MUTANTS, seed: int = SEED) -> int:
    """Try so many mutants; return how many were taken that must not be."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    found: collections.Counter[str] = collections.Counter()
    seen: set[str] = set()
    faults = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        disks = {
            made.put({}, Path(directory, f"{number}.disk")): made
            for number, made in enumerate(templates(Path(directory)))
        }
        for number in range(mutants):
            path, template = chance.choice(list(disks.items()))
            with path.open("r+b") as disk:
                for place, piece in mutant(chance, template).items():
                    disk.seek(place)
                    disk.write(piece)
            fault = _try(path, found, seen)
            if fault:
                faults += 1
                print(f"mutant {number} of seed {seed}: {fault}")
    for reason, times in found.most_common(12):
        print(f"{times:8} {reason}")
    seconds = time.monotonic() - started
    print(f"{mutants} mutants of seed {seed} in {seconds:.0f} s: {len(seen)} kinds taken, {faults} wrongly")
    return faults


def _try(image: Path, found: collections.Counter[str], seen: set[str]) -> str:
    """Read a header as the product does; return what is wrong with that, "" when nothing is."""
    try:
        header, facts = luks_header.copy_from(str(image), "disk")
    except DeviceError as error:
        found[error.what.partition("disk")[2][:60]] += 1
        return "" if error.what.isprintable() else f"quotes what a terminal obeys: {error.what!r}"
    except Exception as bug:
        return f"{type(bug).__name__}: {bug}"
    with header:
        found["taken"] += 1
        text = json.dumps(facts.json, sort_keys=True)
        if text in seen:
            return ""
        seen.add(text)
        try:
            require_listed(facts.json)
        except AssertionError as error:
            return f"takes what is not on the list: {error}"
        dump = subprocess.run(
            ["cryptsetup", "luksDump", "--dump-json-metadata", header.path],
            capture_output=True,
            pass_fds=[header.descriptor],
            check=False,
        )
        if dump.returncode or json.loads(dump.stdout) != facts.json:
            return f"cryptsetup reads it otherwise: {dump.stderr.decode(errors='replace').strip()[:200]} {text[:1500]}"
    return ""


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:])) else 0)
