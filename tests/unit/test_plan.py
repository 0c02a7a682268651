"""What a boot stage decides, without a boot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cryptpilot_boot.boot.plan import before_network, early_mounts, image_needs, pivot_volumes, plan
from cryptpilot_boot.config import Boot, Config, Exec, Kms, KmsRole, Otp, Volume
from cryptpilot_boot.providers import table
from cryptpilot_boot.providers.kbs import Kbs, KbsDaemon
from cryptpilot_boot.providers.provider import Needs
from cryptpilot_boot.providers.together import Together
from cryptpilot_boot.providers.tpm2 import Tpm2

KMS = Kms("kst-1", "secret", "{}", "password", "pem")


def volume(name: str, *, kms: bool = False, auto_open: bool = True, makefs: str | None = None) -> Volume:
    source = Path(f"/etc/cryptpilot/volumes/{name}.toml")
    return Volume(name, f"/dev/{name}", KMS if kms else Otp(), source, auto_open, makefs)


def config(*volumes: Volume) -> Config:
    return Config(Path("/etc/cryptpilot"), Boot(), volumes)


@pytest.mark.parametrize(
    ("command_line", "names"),
    [
        ("quiet root=/dev/mapper/root ro\n", {"root"}),
        ("root=/dev/mapper/r mount.usr=/dev/mapper/u", {"r", "u"}),
        ("root=/dev/mapper/a root=/dev/sda1", set()),
        ("root=UUID=1234 rd.root=/dev/mapper/x", set()),
        ("", set()),
    ],
)
def test_the_pivot_needs_what_root_and_usr_name(command_line: str, names: set[str]) -> None:
    assert pivot_volumes(command_line) == names


def test_a_stage_opens_what_says_auto_open() -> None:
    todo = plan(config(volume("a"), volume("b", auto_open=False)), "initrd", "root=/dev/sda1")
    assert [one.volume for one in todo.volumes] == ["a"]
    assert todo.needed == frozenset()


def test_only_a_volume_of_ours_can_stop_the_boot_and_only_in_the_initrd() -> None:
    both = config(volume("root", kms=True), volume("data"))
    assert plan(both, "initrd", "root=/dev/mapper/root").needed == {"root"}
    assert plan(both, "initrd", "root=/dev/mapper/vg-root").needed == frozenset()
    assert plan(both, "system", "root=/dev/mapper/root").needed == frozenset()


def test_the_kernel_command_line_goes_before_the_configuration() -> None:
    both = Config(Path("/etc/cryptpilot"), Boot(timeout=10, late_after=3), (volume("a"), volume("b")))
    todo = plan(both, "initrd", "rd.cryptpilot.timeout=20 rd.cryptpilot.volume=b rd.cryptpilot.verbose cryptpilot.x")
    assert [one.volume for one in todo.volumes] == ["b"]
    assert (todo.timeout, todo.late_after, todo.verbose) == (20, 3, True)
    assert todo.next_stage
    assert todo.complaints == ("kernel parameter cryptpilot.x is unknown",)
    assert plan(both, "initrd", "cryptpilot=0").volumes == ()
    booted = plan(both, "system", "rd.cryptpilot=0 rd.cryptpilot.late_after=5")
    assert (booted.next_stage, booted.late_after) == (False, None)


def test_a_name_that_no_volume_has_is_told_and_passed_over() -> None:
    both = config(volume("a"), volume("b", auto_open=False))
    todo = plan(both, "initrd", "root=/dev/mapper/a rd.cryptpilot.volume=rooot rd.cryptpilot.volume=b")
    assert [one.volume for one in todo.volumes] == ["a"]
    assert todo.complaints == tuple(f'kernel parameter names "{name}", no auto_open volume' for name in ("rooot", "b"))


def test_a_volume_named_by_hand_is_opened_whatever_the_command_line_names() -> None:
    both = config(volume("a"), volume("b"))
    assert [one.volume for one in plan(both, "system", "cryptpilot.volume=b", ["a"]).volumes] == ["a"]


def test_the_root_has_more_to_mount_before_the_pivot() -> None:
    fstab = """
# /dev/mapper/comment /usr ext4 defaults
/dev/mapper/root / ext4 defaults 0 1
/dev/mapper/early /early xfs noatime,x-initrd.mount
/dev/mapper/data /data ext4 defaults 0 2
UUID=1234 /usr ext4 defaults
/dev/mapper/short /short
/dev/mapper/broken
"""
    assert early_mounts(fstab, "quiet") == {"/usr": "UUID=1234", "/early": "/dev/mapper/early"}
    assert early_mounts("", "mount.usr=LABEL=usr") == {"/usr": "LABEL=usr"}
    for option in ("noauto", "nofail"):
        assert early_mounts(f"/dev/mapper/a /usr ext4 ro,{option}", "") == {}


def test_systemd_needs_some_volumes_before_the_network_that_their_keys_come_over() -> None:
    fstab = "/dev/mapper/a /logs ext4\n/dev/mapper/b /var ext4\n/dev/mapper/c /data ext4\n/dev/mapper/d /tmp ext4\n"
    volumes = [volume("a", kms=True), volume("b", kms=True), volume("c", kms=True), volume("d")]
    assert before_network(fstab, volumes) == {"b"}
    assert before_network(fstab, volumes, lambda path: path.replace("/logs", "/var/log")) == {"a", "b"}


def test_a_volume_can_be_kept_out_of_the_image() -> None:
    out = Volume("a", "/dev/a", KMS, Path("/etc/cryptpilot/volumes/a.toml"), auto_open=True, initrd=False)
    needs = image_needs(config(out, volume("b")))
    assert [path.name for path in needs.configuration] == ["global.toml", "b.toml"]
    assert not needs.network
    assert [one.volume for one in plan(config(out), "system", "").volumes] == ["a"]
    assert plan(config(out), "initrd", "").volumes == ()


def test_an_image_without_volumes_needs_nothing() -> None:
    needs = image_needs(config(volume("a", auto_open=False)))
    assert (needs.configuration, needs.programs, needs.modules, needs.network) == ((), (), (), False)


def test_an_image_asks_a_person_if_it_is_to_and_there_is_a_key_to_ask_for() -> None:
    def asks(*volumes: Volume, ask: bool = True) -> bool:
        return image_needs(dataclasses.replace(config(*volumes), boot=Boot(ask=ask))).ask

    assert asks(volume("a", kms=True), volume("b"))
    assert not asks(volume("a", kms=True), ask=False)
    assert not asks(volume("b"))
    assert not asks(volume("a", kms=True, auto_open=False))


@pytest.mark.parametrize(("word", "ask"), [("", True), ("rd.cryptpilot.ask=no", False), ("cryptpilot.ask", True)])
def test_the_kernel_command_line_decides_whether_a_person_is_asked(word: str, ask: bool) -> None:
    attended = dataclasses.replace(config(volume("a", kms=True)), boot=Boot(ask=True))
    assert plan(attended, "initrd", word).ask is ask
    assert plan(attended, "system", word).ask is True
    assert plan(config(volume("a", kms=True)), "system", word).ask is (word == "cryptpilot.ask")


def test_an_image_carries_the_configuration_of_its_own_volumes_alone() -> None:
    needs = image_needs(config(volume("a"), volume("b", auto_open=False)))
    assert [path.name for path in needs.configuration] == ["global.toml", "a.toml"]


def test_only_a_kms_volume_asks_for_the_network() -> None:
    assert not image_needs(config(volume("a"))).network
    assert not image_needs(config(volume("a"), volume("b", kms=True, auto_open=False))).network
    assert image_needs(config(volume("a"), volume("b", kms=True))).network


def test_only_a_role_without_a_ca_of_its_own_needs_those_of_the_system() -> None:
    source = Path("/etc/cryptpilot/volumes/v.toml")
    without = Volume("a", "/dev/a", KmsRole("disk"), source, auto_open=True)
    given = Volume("b", "/dev/b", KmsRole("disk", kms_cert_pem="pem"), source, auto_open=True)
    late = Volume("c", "/dev/c", KmsRole("disk"), source, auto_open=True, initrd=False)
    assert image_needs(config(without, given)).authorities
    for others in ((given,), (volume("d", kms=True),), (late,)):
        assert not image_needs(config(*others)).authorities
    assert image_needs(config(given)).network


def test_an_image_carries_the_guest_components_for_a_volume_of_a_kbs_and_for_no_other() -> None:
    source = Path("/etc/cryptpilot/volumes/v.toml")
    program = Volume("a", "/dev/a", Kbs("https://kbs", "kbs:///a/b/c"), source, auto_open=True)
    daemon = Volume("b", "/dev/b", KbsDaemon("kbs:///a/b/c"), source, auto_open=True)
    found = image_needs(config(program))
    assert "confidential-data-hub" in found.programs
    assert (found.units, found.network, found.authorities) == (("attestation-agent.service",), True, True)
    assert "tdx_guest" in found.drivers
    assert "tdx_guest" not in found.modules
    both = image_needs(config(program, daemon))
    assert both.units == ("attestation-agent.service", "confidential-data-hub-daemon.service")
    assert "confidential-data-hub" not in image_needs(config(daemon)).programs
    for one in (Kbs("https://kbs", "kbs:///a/b/c", "PEM"), Kbs("http://kbs", "kbs:///a/b/c")):
        assert not image_needs(config(dataclasses.replace(program, encrypt=one))).authorities
    for others in ((volume("c"), volume("d", kms=True)), (dataclasses.replace(program, initrd=False), volume("c"))):
        found = image_needs(config(*others))
        assert (found.units, found.drivers) == ((), ())
        assert "confidential-data-hub" not in found.programs


def test_an_image_carries_what_its_sources_of_keys_need_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = Needs(programs=("unseal",), files=("/etc/unseal.conf",), modules=("tpm_tis",), network=True)
    rows = [dataclasses.replace(one, needs=lambda _: needs) if one.make is Exec else one for one in table.PROVIDERS]
    monkeypatch.setattr(table, "PROVIDERS", tuple(rows))
    source = Path("/etc/cryptpilot/volumes/v.toml")
    sealed = Volume("a", "/dev/a", Exec("x"), source, auto_open=True)
    found = image_needs(config(sealed, volume("b")))
    assert (found.programs[-1], found.files, found.modules[-1], found.network) == (
        "unseal",
        ("/etc/unseal.conf",),
        "tpm_tis",
        True,
    )
    late = dataclasses.replace(sealed, initrd=False)
    others = image_needs(config(late, volume("b")))
    assert (others.files, others.network) == ((), False)
    assert "unseal" not in others.programs
    assert "tpm_tis" not in others.modules


def test_only_a_temporary_volume_needs_mkfs_at_boot() -> None:
    assert "mkfs.ext4" in image_needs(config(volume("a", makefs="ext4"))).programs
    assert "mkfs.ext4" not in image_needs(config(volume("a", kms=True, makefs="ext4"))).programs


def test_integrity_needs_what_puts_a_header_and_a_disk_together() -> None:
    needs = {on: image_needs(config(dataclasses.replace(volume("a"), integrity=on))) for on in (True, False)}
    assert set(needs[True].programs) - set(needs[False].programs) == {"dmsetup", "modprobe"}
    assert set(needs[True].modules) - set(needs[False].modules) == {"dm_integrity", "authenc", "hmac", "loop"}


def test_a_command_goes_into_the_image_of_the_volume_it_opens() -> None:
    source = Path("/etc/cryptpilot/volumes/v.toml")
    both = [
        Volume("a", "/dev/a", Exec("/opt/bin/get key", ("-x",)), source, auto_open=True),
        Volume("b", "/dev/b", Exec("not-at-boot"), source),
    ]
    needs = image_needs(config(*both))
    assert needs.programs == ("cryptsetup", "blkid", "/opt/bin/get key")
    assert not needs.network


def test_an_image_carries_a_tpms_drivers_only_for_a_volume_that_uses_one() -> None:
    source = Path("/etc/cryptpilot/volumes/v.toml")
    alone = Volume("a", "/dev/a", Tpm2("/dev/a"), source, auto_open=True)
    both = Together((KmsRole("disk"), Tpm2("/dev/a", together=True)))
    without = image_needs(config(volume("b")))
    found = image_needs(config(alone))
    assert set(found.modules) - set(without.modules) == {"tpm_tis", "tpm_crb"}
    # there is no program and no library to it
    assert (found.programs, found.files, found.network) == (without.programs, (), False)
    found = image_needs(config(dataclasses.replace(alone, encrypt=both)))
    assert set(found.modules) - set(without.modules) == {"tpm_tis", "tpm_crb"}
    assert (found.network, found.authorities) == (True, True)
