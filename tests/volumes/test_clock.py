"""A clock that the host has set back, so that a certificate that ran out would be good again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests import machines
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from pathlib import Path

RECORD = "/usr/libexec/cryptpilot/image.json"
BACK = 12 * 3600
"""Seconds by which the clock is set back: the certificate was good then, and so was the CA's own."""


def test_an_initrd_whose_clock_is_set_back_believes_no_certificate_that_ran_out(
    site: machines.Site, tree: Path, tmp_path: Path
) -> None:
    """The booted system does: there the clock is the time service's. The gateway's clock is this machine's."""
    site.behave("ok")
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "d1")
    result = machines.run_with_kms(
        site,
        tree,
        f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/data1.toml << 'EOF'
{machines.volume_file(site, volume="data1", dev=disk.device)}
EOF
set_back() {{ date --set="@$(($(date +%s) - {BACK}))" > /dev/null; }}
cryptpilot initrd record > {RECORD}
set_back
cryptpilot init data1 --yes
cryptpilot open data1
cryptpilot close data1
touch /etc/initrd-release
cryptpilot boot-service --stage initrd > /run/said 2>&1 || true
echo "after the initrd: $(ls /dev/mapper)"
cat /run/said
grep '"step": *"clock"' /run/cryptpilot/*.jsonl
date +"clock %s"; date --date="$(sed -n 's/.*"made": "\\(.*\\)".*/\\1/p' {RECORD})" +"image %s"
# and once more, by hand
set_back
! cryptpilot open data1 2>&1 || exit 9
date +"clock %s"
""",
        disks=[disk],
        kms=["--expired"],
    ).check()
    said = result.stdout
    assert "after the initrd: control\n" in said
    assert re.search(
        r"this machine's clock said [0-9: -]+ UTC, before this image was made, and was set to that time, ", said
    )
    assert said.count("certificate has expired") >= 2
    (image,) = re.findall(r"^image (\d+)", said, re.MULTILINE)
    clocks = re.findall(r"^clock (\d+)", said, re.MULTILINE)
    assert len(clocks) == 2
    assert all(int(image) <= int(clock) < int(image) + 600 for clock in clocks)
    (event,) = re.findall(r'^.*"step": *"clock".*$', said, re.MULTILINE)
    assert '"by": "this image"' in event
