"""Where the secret is while volumes are made and opened: in the two processes that need it, and in no other."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tests import machines
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from pathlib import Path

# Looks into every process there is, again and again, until /run/stop is there. The patterns come backwards, so that
# no one has them in memory but who is meant to.
WATCHER = r"""
cat > /run/watch << 'END'
use strict;
my @patterns = map { scalar reverse pack("H*", $_) } @ARGV;
my %seen;
sub note { my $line = join(" ", @_); print "$line\n" if !$seen{$line}++; }
sub slurp { my ($path) = @_; local $/; open(my $file, "<", $path) or return ""; binmode $file; return <$file> // "" }
sub holds { my ($text) = @_; return scalar grep { index($text, $_) >= 0 } @patterns }
$| = 1;
while (!-e "/run/stop") {
    for my $pid (map { m|/([0-9]+)$| } glob("/proc/[0-9]*")) {
        next if $pid == $$;
        my ($name) = slurp("/proc/$pid/comm") =~ /(.*)/;
        note("saw", $name);
        note("ARGUMENT", $name) if holds(slurp("/proc/$pid/cmdline"));
        note("ENVIRONMENT", $name) if holds(slurp("/proc/$pid/environ"));
        my ($core) = slurp("/proc/$pid/limits") =~ /Max core file size +(\S+)/;
        note("core", $name, $core) if defined $core && $name =~ /^crypt|^mkfs/;
        # some of it, as soon as it has asked for the secret
        note("locked", $name) if slurp("/proc/$pid/status") =~ /VmLck:\s+[1-9]/;
        for my $fd (glob("/proc/$pid/fd/*")) {
            my $to = readlink($fd) // "";
            next if $to !~ m|^/| || !-f $fd || -s _ > 32 << 20;  # a pipe is read by who shall read it
            note("FILE", $name, $to) if holds(slurp($fd));
        }
        next if $name =~ /^(cryptpilot|cryptsetup|python3?)$/;
        open(my $memory, "<", "/proc/$pid/mem") or next;
        binmode $memory;
        for my $line (split /\n/, slurp("/proc/$pid/maps")) {
            my ($from, $to) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw/ or next;
            my ($start, $length) = (hex($from), hex($to) - hex($from));
            next if $length > 64 << 20;
            sysseek($memory, $start, 0) or next;
            my $bytes = "";
            sysread($memory, $bytes, $length) or next;
            # by the name it has by now
            note("MEMORY", slurp("/proc/$pid/comm") =~ /(.*)/) if holds($bytes);
        }
    }
}
END
"""


def test_only_the_processes_that_need_it_ever_have_the_secret(site: machines.Site, tree: Path, tmp_path: Path) -> None:
    """The KMS is no part of this; a process made to hold the secret is found, or this would prove nothing."""
    site.behave("ok")
    decoded = base64.b64decode(site.secret)
    backwards = [part[::-1].hex() for part in (decoded[:24], decoded[-24:], site.secret[:40].encode())]
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "d1")
    result = machines.run_with_kms(
        site,
        tree,
        f"""{WATCHER}
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/data1.toml << 'EOF'
{machines.volume_file(site, volume="data1", dev=disk.device)}
EOF
# long enough to be looked into, and so are its children
printf '#!/bin/bash\\nsleep 4\\nexec /run/mkfs.real "$@"\\n' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
target=$(readlink -f /usr/sbin/mkfs.ext4); cp $target /run/mkfs.real; mount --bind /run/mkfs.ext4 $target
perl /run/watch {" ".join(backwards)} > /run/seen &
cryptpilot init data1 --yes
cryptpilot open data1
# cryptsetup is not there for long
for _ in $(seq 30); do
    if grep --quiet "core cryptsetup" /run/seen; then break; fi
    cryptpilot close data1
    cryptpilot open data1
done
sleep 1
perl -e '$0 = "decoy"; my $secret = reverse pack("H*", "{backwards[0]}"); sleep 5'
touch /run/stop
wait %1
cat /run/seen
""",
        disks=[disk],
        timeout=180,
    ).check()
    lines = result.stdout.splitlines()
    found = [line for line in lines if line.split()[0] in ("ARGUMENT", "ENVIRONMENT", "FILE", "MEMORY")]
    assert found == ["MEMORY decoy"]
    assert {"saw cryptpilot", "saw cryptsetup", "saw mkfs.ext4", "saw sleep"} <= set(lines)
    assert "locked cryptpilot" in lines
    assert "core cryptpilot 1" in lines
    # which they have from the first moment on
    children = {line for line in lines if line.startswith(("core cryptsetup", "core mkfs"))}
    assert children >= {"core cryptsetup 1", "core mkfs.ext4 1"}
    assert all(line.endswith(" 1") for line in children), children
