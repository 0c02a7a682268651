"""Boots as they are after an outage: the key service is away, then throttles; the clock is years off.

What each other trouble is called and what becomes of it: tests/unit/test_kms_provider.py; whole boots that fail:
tests/boot/test_trouble.py.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tests import machines
from tests.boot.evidence import require_no_secret
from tests.lab import qemu

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.disk import Disk
    from tests.lab.net import Namespace

OUTAGE = 30.0
"""Seconds for which the key service is away after the agent first asked."""
DRACUT_PATIENCE = 5
"""Seconds after which dracut would give up on its root by itself; more of them on a slow machine."""
YEARS_BACK = 5


def outcomes(site: machines.Site) -> list[str]:
    return [request["outcome"] for request in site.requests()]


def test_kms_is_down_for_half_a_minute_and_then_throttles(
    encrypted: qemu.Machine, report_disk: Disk, site: machines.Site, network: Namespace, tmp_path: Path
) -> None:
    """And dracut, whose patience is shorter than the agent's, does not give up meanwhile."""
    site.behave("throttle", times=2)
    site.forget_requests()
    machine = replace(encrypted, cmdline=f"{encrypted.cmdline} rd.retry={DRACUT_PATIENCE}")
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        guest.result(guest.wait(400, until=r"root: waiting: \S+: connection refused")).check(qemu.Ending.SEEN)
        # all the time it is away nothing is opened, and nobody gives up
        gave_up = guest.wait(OUTAGE, until="/dev/mapper/root opened|could not be opened|Could not boot")
        guest.result(gave_up).check(qemu.Ending.TIMED_OUT)
        with machines.running_kms(site, network):
            ending = guest.wait(400)
    result = guest.result(ending).check()
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert outcomes(site) == ["Rejected.Throttling", "Rejected.Throttling", "ok"]
    assert (
        f"root: waiting: {machines.GATEWAY} refuses: there are too many requests (KMS says Rejected.Throttling"
        in result.console
    )
    assert re.search(r"root: /dev/mapper/root opened in", result.console)
    assert "dracut-initqueue: starting timeout scripts" in result.console


def test_a_clock_that_is_five_years_back_is_set_by_the_gateways_and_a_secret_was_rotated(
    encrypted: qemu.Machine,
    boot_tree: Path,
    report_disk: Disk,
    site: machines.Site,
    network: Namespace,
    tmp_path: Path,
) -> None:
    """It is never before the image was made, two months ago: by that the gateway's certificate is not valid yet.

    And when that is over, the current value of the secret is not what the volume was made with.
    """
    kms = site.copied(tmp_path / "kms").rotate()
    now = datetime.datetime.now(datetime.timezone.utc)
    past = now.replace(year=now.year - YEARS_BACK, day=min(now.day, 28))
    made = now - datetime.timedelta(days=60)
    image = machines.make_image(boot_tree, tmp_path / "initrd.img", made=made)
    machine = replace(encrypted, clock=f"{past:%Y-%m-%dT%H:%M:%S}", initrd=image.path)
    with machines.running_kms(kms, network):
        console = qemu.boot(machine, timeout=400, log=tmp_path / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    told = re.search(
        r"root: waiting: this machine's clock said (\S+ \S+ UTC), and was set to (\S+ \S+) UTC, as", console
    )
    assert told, console
    assert told[1].startswith((f"{made:%Y-%m-%d}", f"{made + datetime.timedelta(minutes=9):%Y-%m-%d}"))
    raised = r"this machine's clock said (\S+) \S+ UTC, before this image was made, and was set to that time, "
    assert re.search(rf"{raised}{made:%Y-%m-%d %H:%M} UTC", console), console
    assert told[2].startswith((f"{now:%Y-%m-%d}", f"{now + datetime.timedelta(days=1):%Y-%m-%d}"))
    # the clock is right from then on, in the booted system too
    wrong, right = (machines.events(report)[place]["utc"] for place in (0, -1))
    assert wrong < f"{now:%Y-%m-%d}" <= right
    asked = [request["stage"] for request in kms.requests() if request["outcome"] == "ok"]
    assert asked == ["ACSCurrent", "ACSPrevious"]
    assert {outcome for outcome in outcomes(kms) if outcome != "ok"} == {"tls: SSLV3_ALERT_BAD_CERTIFICATE"}
    assert "root: warning: the previous value of its secret opened it" in console
    (root,) = [one for one in json.loads(report["show.json"]) if one["volume"] == "root"]
    assert (root["opened"], root["rotation_pending"], root["recovery_key"]) == (True, True, True)
    require_no_secret(kms, {**report, "console": console})
