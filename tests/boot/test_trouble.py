"""Boots that cannot go on: the console says why and what to do, within the deadline, and no disk is touched."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot.conftest import DEADLINE
from tests.boot.denial import denied
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import Boot
    from tests.lab.net import Namespace

IN_TIME = f"rd.cryptpilot.timeout={DEADLINE}"
SLACK = 15
"""Seconds beyond the deadline in which an emulated machine may still be busy with giving up."""


def require_message(result: qemu.BootResult, *said: str, deadline: int = DEADLINE) -> None:
    """Fail unless the console tells all that a person needs, `said` included, and the machine gave up by itself."""
    console = result.console
    for fact in (
        'volume "root" could not be opened',
        "device:   /dev/disk/by-id/virtio-root",
        f'provider: KMS instance {machines.INSTANCE}, secret "{machines.SECRET_NAME}"',
        f"endpoint: {machines.GATEWAY}:443",
        "the boot needs this volume and stops here",
        "by hand:  rd.shell on the kernel command line gives a shell",
        *said,
    ):
        assert fact in console, f"{fact!r} is not on the console:\n{result}"
    assert re.search(r"to do:    \S+", console)
    started = result.at(r"Starting cryptpilot-initrd")
    told = result.at(r"could not be opened")
    assert started is not None
    assert told is not None
    assert told - started < deadline + SLACK
    assert re.search(r"^root: could not be opened by the initrd stage", console, re.MULTILINE), (
        "there is no boot report"
    )
    assert re.search(machines.NO_SHELL, console)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (
            "refuse",
            [
                f'failed:   reading secret "{machines.SECRET_NAME}" is not permitted (KMS says Forbidden.NoPermission',
                "give the application access point a policy",
            ],
        ),
        (
            "wrong-secret",
            ["failed:   the secret does not open /dev/disk/by-id/virtio-root: no key slot", "is what the volume was"],
        ),
    ],
)
def test_a_gateway_that_says_no_or_a_secret_that_is_wrong(
    boot: Boot, image: machines.Image, own_root_disk: Disk, kms: machines.Site, behaviour: str, said: list[str]
) -> None:
    before = sha256(own_root_disk.path)
    kms.behave(behaviour)
    require_message(boot(image, (own_root_disk,), IN_TIME, stops=True), *said)
    # a secret that opens nothing may have been rotated: its previous value is asked for as well
    assert len(kms.requests()) == (2 if behaviour == "wrong-secret" else 1)
    assert sha256(own_root_disk.path) == before


def test_a_gateway_nobody_can_reach(boot: Boot, image: machines.Image, own_root_disk: Disk) -> None:
    """The name resolves and the network is there, but nothing listens: that may change, until the deadline."""
    before = sha256(own_root_disk.path)
    result = boot(image, (own_root_disk,), IN_TIME, stops=True)
    require_message(result, f"failed:   {machines.GATEWAY}: connection refused", "check the KMS instance's state")
    (seconds,) = set(re.findall(r"failed: .*: connection refused \(\d+ tries in (\d+) s\)", result.console))
    assert DEADLINE <= int(seconds) < DEADLINE + 10
    assert sha256(own_root_disk.path) == before


def test_a_certificate_that_is_not_from_the_given_ca(
    boot: Boot, image: machines.Image, own_root_disk: Disk, network: Namespace, tmp_path: Path
) -> None:
    before = sha256(own_root_disk.path)
    impostor = machines.make_site(tmp_path / "impostor")
    with machines.running_kms(impostor, network):
        result = boot(image, (own_root_disk,), IN_TIME, stops=True)
    require_message(
        result,
        f"failed:   the certificate of {machines.GATEWAY} is refused",
        f"kms_cert_pem must be the CA chain of KMS instance {machines.INSTANCE}",
    )
    assert [request for request in impostor.requests() if request["api"]] == []
    assert sha256(own_root_disk.path) == before


def test_a_volume_that_was_never_initialized(
    boot: Boot, image: machines.Image, kms: machines.Site, tmp_path: Path
) -> None:
    disk = Disk(blank_disk(tmp_path / "blank.img", 64 << 20), machines.ROOT)
    before = sha256(disk.path)
    require_message(
        boot(image, (disk,), IN_TIME, stops=True),
        "failed:   /dev/disk/by-id/virtio-root is not initialized: it holds nothing",
        "to do:    initialize it first: cryptpilot init root",
    )
    assert kms.requests() == []
    assert sha256(disk.path) == before


def test_a_disk_that_is_withheld_gives_no_shell(
    boot_tree: Path, image: machines.Image, own_root_disk: Disk, kms: machines.Site, network: Namespace, tmp_path: Path
) -> None:
    """The console is the host's, and what it types there reaches no shell, with dracut's own defaults."""
    before = sha256(own_root_disk.path)
    misplaced = Disk(own_root_disk.path, "elsewhere")
    deadline = 15
    machine = machines.machine(boot_tree, image, (misplaced,), network)
    machine = replace(machine, cmdline=f"{machine.cmdline} rd.cryptpilot.timeout={deadline}")
    result = denied(machine, tmp_path / "console.log")
    require_message(
        result,
        f"failed:   /dev/disk/by-id/virtio-root did not appear within {deadline} s",
        "check that the disk is attached",
        deadline=deadline,
    )
    assert kms.requests() == []
    assert sha256(own_root_disk.path) == before
