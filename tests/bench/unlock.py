"""How long opening one volume takes, beside other programs that do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import machines
from tests.bench.table import columns, row, title
from tests.bench.timing import TIMED, medians
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop

ROUNDS = 5
SIZE = 64 << 20
PEERS = ("clevis", "clevis-luks", "clevis-dracut", "tang", "jose", "curl", "socat")
TANG = "127.0.0.1:7500"
WAYS = {
    "kms": "cryptpilot open, KMS",
    "three": "cryptpilot open, KMS with two fallbacks, which are not needed",
    "exec": "cryptpilot open, a command that prints a file",
    "otp": "cryptpilot open, one-time password, makes ext4",
    "clevis": "clevis luks unlock, tang",
    "systemd": "systemd-cryptsetup attach, key file",
    "cryptsetup": "cryptsetup open, key file",
}
OURS = ("kms", "three", "exec", "otp")
FALLBACKS_AIM = 1.05
"""Times one source, for three of which the first is well."""


def measure(shop: Workshop) -> None:
    """Print the times of the ways to open a volume, all in one machine, which has one processor and both servers."""
    work = shop.directory("unlock")
    tree = machines.installed_tree(work / "tree", PEERS)
    disks = {name: Disk(blank_disk(work / f"{name}.img", SIZE), name) for name in (*OURS, "peers")}
    machines.configure(
        tree,
        {
            "kms": machines.volume_file(shop.site, volume="kms", dev=disks["kms"].device),
            "three": three_sources(shop.site, disks["three"].device),
            "exec": machines.exec_file("exec", disks["exec"].device, key="/run/key"),
            "otp": f'volume = "otp"\ndev = "{disks["otp"].device}"\nmakefs = "ext4"\n[encrypt.otp]\n',
        },
    )
    script = _script(disks["peers"].device)
    result = machines.run_with_kms(shop.site, tree, script, disks=list(disks.values()), timeout=900).check()
    found = medians(result.stdout)
    title(f"Opening one volume in user-mode Linux (median of {ROUNDS}; slow in system calls alone)")
    columns(
        ["", "time", "to clevis", "to cryptsetup", "processor time"],
        [
            [
                text,
                f"{found[name].seconds:.2f} s",
                f"{found[name].seconds / found['clevis'].seconds:.2f}",
                f"{found[name].seconds / found['cryptsetup'].seconds:.1f}",
                f"{found[name].processor:.2f} s",
            ]
            for name, text in WAYS.items()
        ],
    )
    times = found["three"].seconds / found["kms"].seconds
    row("three sources", f"{times:.2f} times one (aim: {FALLBACKS_AIM})")
    row("aim", "cryptpilot open: with KMS 5 times cryptsetup, with a program 2.5 times")


def three_sources(site: machines.Site, dev: str) -> str:
    """Write the configuration of a volume whose first source is as that of the one beside it."""
    first = machines.volume_file(site, volume="three", dev=dev)
    second = first[first.index("[encrypt.kms]") :].replace("encrypt", "fallback").replace(machines.SECRET_NAME, "other")
    third = '[fallback.exec]\ncommand = "cat"\nargs = ["/run/key"]\n'
    return f"{first}\n[[fallback]]\n{second}\n[[fallback]]\n{third}"


def _script(device: str) -> str:
    """Write what the machine does. No key of a peer is stretched, as ours are not."""
    rounds = "\n".join(
        f"    timed {name} {command}\n    cryptsetup close {name}"
        for name, command in {
            **{name: f"cryptpilot open {name}" for name in OURS},
            "clevis": f"clevis luks unlock -d {device} -n clevis",
            "systemd": f"/lib/systemd/systemd-cryptsetup attach systemd {device} /run/key luks",
            "cryptsetup": f"cryptsetup open --type=luks2 --key-file=/run/key {device} cryptsetup",
        }.items()
    )
    return f"""
{TIMED}
umask 077
head -c 64 /dev/urandom > /run/key
# with its first source alone: there is no secret for the second
three=/etc/cryptpilot/volumes/three.toml
cp $three /run/three
sed -i '/^\\[\\[fallback/,$d' $three
cryptpilot init kms exec three --yes
cp /run/three $three
cryptsetup luksFormat --batch-mode --type=luks2 --cipher=aes-xts-plain64 --key-size=512 --sector-size=4096 \
    --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/key {device}
mkdir /run/tang
/usr/libexec/tangd-keygen /run/tang
# what systemd does with tangd.socket: a process for each connection
socat TCP-LISTEN:{TANG.partition(":")[2]},bind=127.0.0.1,fork,reuseaddr EXEC:'/usr/libexec/tangd /run/tang' &
until curl --silent --fail --output /run/advertisement http://{TANG}/adv; do sleep 0.1; done
clevis luks bind -y -k /run/key -d {device} tang '{{"url":"http://{TANG}","adv":"/run/advertisement"}}'
for _ in {" ".join(map(str, range(ROUNDS)))}; do
{rounds}
done
"""
