"""Machines with the product on them, made as an administrator would make them.

An installed tree (`build.py install`), a configuration as the guide prints it, a root disk formatted by
`cryptpilot init`, an image made by the tree's own dracut; and the KMS they ask, in a network of its own.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import shutil
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.disk import Disk, blank_disk
from tests.lab.image import fill_script, make_archive, prune
from tests.lab.qemu import CONSOLE, Machine
from tests.lab.run import LabError, end, is_running, run, spawn
from tests.lab.tree import SHARE, clone, kernel, make_initrd, root_tree
from tests.lab.uml import UmlResult, run_uml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.lab.net import Namespace

CHECKOUT = Path(__file__).resolve().parents[1]
INSTANCE = "kst-bjj67d004a85ykq80test"
GATEWAY = f"{INSTANCE}.cryptoservice.kms.aliyuncs.com"
REGION = "cn-hangzhou"
SHARED_GATEWAY = f"kms-vpc.{REGION}.aliyuncs.com"
METADATA = "100.100.100.200"
"""Where the metadata service is, for every instance: a network needs this address."""
SECRET_NAME = "confidential_cloud_disk_passphrase"
ROOT = "root"
"""Name of the root volume and of the disk it is on."""
REPORT = "report"
"""Name of the disk on which the booted system leaves what it found."""
ROOT_DISK_BYTES = 768 << 20
REPORT_BYTES = 32 << 20
BEHAVIOUR = "behaviour"
PREVIOUS = "previous"
KMS_FILES = "/run/kms"
"""Where a script that is run beside the KMS finds the site's directory."""
ROTATE_SECRET = f"""
cp {KMS_FILES}/secret {KMS_FILES}/{PREVIOUS}
head -c 256 /dev/urandom | base64 -w 0 > {KMS_FILES}/secret
"""
"""The shell lines that do there what `Site.rotate` does."""


@dataclass(frozen=True)
class Site:
    """What the user of a KMS instance has: a secret in it, a client key, the instance's CA.

    directory: where the stand-in keeps them, and its record of requests. secret_names: the secret under another name
    is another secret, though of the same value. previous: what the secret was before it was rotated, "" if it was not.
    """

    directory: Path
    secret: str
    secret_names: tuple[str, ...] = (SECRET_NAME,)
    previous: str = ""

    @property
    def client_key(self) -> dict[str, str]:
        """Return the client key file's content."""
        key: dict[str, str] = json.loads((self.directory / "client_key.json").read_text())
        return key

    @property
    def forbidden(self) -> dict[str, bytes]:
        """Return what must be found nowhere, by what it is; parts long enough to be no coincidence."""
        private_key = self.client_key["PrivateKeyData"]
        values = {"the secret": self.secret, "the previous secret": self.previous}
        return {
            **{what: value[:40].encode() for what, value in values.items() if value},
            **{f"{what}, decoded": base64.b64decode(value)[:24] for what, value in values.items() if value},
            **{
                f"{what}, decoded, in hexadecimal": base64.b64decode(value)[:24].hex().encode()
                for what, value in values.items()
                if value
            },
            "the client key's password": (self.directory / "client_key_password").read_text().strip().encode(),
            "the client key's PKCS#12": private_key[:40].encode(),
            "the middle of the client key's PKCS#12": private_key[800:840].encode(),
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return the stand-in's record of the requests it served."""
        record = self.directory / "requests.jsonl"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def metadata_requests(self) -> list[dict[str, Any]]:
        """Return the record of the requests to the metadata service."""
        return [json.loads(line) for line in (self.directory / "metadata.jsonl").read_text().splitlines()]

    def forget_requests(self) -> None:
        """Begin the records anew."""
        for name in ("requests.jsonl", "metadata.jsonl"):
            (self.directory / name).unlink(missing_ok=True)

    def copied(self, directory: Path) -> Site:
        """Return the same instance in a directory of its own: to rotate a secret that other tests share."""
        shutil.copytree(self.directory, directory)
        copy = replace(self, directory=directory)
        copy.behave("ok")
        copy.forget_requests()
        return copy

    def rotate(self) -> Site:
        """Give the secret a new value, at once for a stand-in that runs, and return what the user has then."""
        rotated = replace(self, secret=_random_secret(), previous=self.secret)
        # in this order: at no moment is the one that volumes have been made with gone
        (self.directory / PREVIOUS).write_text(rotated.previous)
        (self.directory / "secret").write_text(rotated.secret)
        return rotated

    def behave(self, name: str, **parameters: object) -> None:
        """Have the stand-in treat requests in a certain way from now on; "ok" is the honest one."""
        file = self.directory / BEHAVIOUR
        unfinished = file.with_name(BEHAVIOUR + ".new")
        unfinished.write_text(json.dumps({"name": name, **parameters}))
        unfinished.replace(file)


def make_site(directory: Path, secret: str = "") -> Site:
    """Make an instance with one secret, by default as the guide has it generated: 256 random bytes in base64."""
    secret = secret or _random_secret()
    directory.mkdir(parents=True)
    run([sys.executable, "-c", _MAKE_PKI, directory], env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    (directory / "secret").write_text(secret)
    return Site(directory, secret)


def _random_secret() -> str:
    return base64.b64encode(os.urandom(256)).decode()


_MAKE_PKI = "import sys, pathlib, tests.kms.directory as d; d.open_directory(pathlib.Path(sys.argv[1]))"


def kms_command(site: Site, directory: str, ready_file: str) -> list[str]:
    """Return the command line that runs the stand-in as a site's gateway; directory: where the site's is seen."""
    return [
        *(sys.executable, "-m", "tests.kms", "--dir", directory),
        *("--listen", "127.0.0.1:443", "--name", GATEWAY),
        *(argument for name in site.secret_names for argument in ("--secret", f"{name}=@{directory}/secret")),
        *(argument for name in site.secret_names for argument in ("--previous", f"{name}=@{directory}/{PREVIOUS}")),
        *("--ready-file", ready_file),
    ]


def role_command(site: Site, directory: str, ready_file: str) -> list[str]:
    """Return the command line that runs the stand-in as shared gateway and metadata service of an instance's region."""
    return [
        *(sys.executable, "-m", "tests.kms", "--dir", directory),
        *("--listen", "127.0.0.1:0", "--name", SHARED_GATEWAY, "--region", REGION),
        *("--shared", "127.0.0.1:443", "--metadata", f"{METADATA}:80"),
        *(argument for name in site.secret_names for argument in ("--secret", f"{name}=@{directory}/secret")),
        *("--ready-file", ready_file),
    ]


@contextlib.contextmanager
def running_kms(
    site: Site, network: Namespace, command: Callable[[Site, str, str], list[str]] = kms_command
) -> Iterator[None]:
    """Run the stand-in in a network, where machines find it under its real name."""
    ready = site.directory / "ready"
    ready.unlink(missing_ok=True)
    process = spawn(
        network.command(command(site, str(site.directory), str(ready))),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    try:
        _wait_for(ready, process)
        yield
    finally:
        end(process)


def _wait_for(ready: Path, process: Any) -> None:
    deadline = time.monotonic() + 30
    while not ready.exists():
        if not is_running(process) or time.monotonic() > deadline:
            raise LabError("The stand-in KMS did not start.")
        time.sleep(0.02)


def volume_file(
    site: Site,
    *,
    volume: str = ROOT,
    dev: str = f"/dev/disk/by-id/virtio-{ROOT}",
    makefs: str = "ext4",
    secret_name: str = SECRET_NAME,
) -> str:
    """Write the configuration of a KMS volume as the guide prints it."""
    client_key = (site.directory / "client_key.json").read_text()
    password = (site.directory / "client_key_password").read_text()
    return f'''\
volume = "{volume}"
dev = "{dev}"
auto_open = true
makefs = "{makefs}"

[encrypt.kms]
kms_instance_id = "{INSTANCE}"
secret_name = "{secret_name}"
client_key = \'\'\'
{client_key}
\'\'\'
client_key_password = "{password}"
kms_cert_pem = """
{(site.directory / "ca.pem").read_text()}"""
'''


def role_file(*, volume: str = ROOT, dev: str = f"/dev/disk/by-id/virtio-{ROOT}") -> str:
    """Write the configuration of a KMS volume on an instance with a RAM role: nothing more is needed."""
    return f"""\
volume = "{volume}"
dev = "{dev}"
auto_open = true
makefs = "ext4"

[encrypt.kms]
auth_mode = "ecs_ram_role"
secret_name = "{SECRET_NAME}"
"""


def exec_file(volume: str, dev: str, *, key: str = "/run/key", makefs: str = "ext4", integrity: bool = False) -> str:
    """Write the configuration of a volume whose passphrase is what `cat` says of a file: the quickest."""
    return f"""\
volume = "{volume}"
dev = "{dev}"
makefs = "{makefs}"
integrity = {str(integrity).lower()}

[encrypt.exec]
command = "cat"
args = ["{key}"]
"""


def exec_volume(volume: str, dev: str, *, integrity: bool = False) -> str:
    """Return the shell lines that configure such a volume."""
    text = exec_file(volume, dev, integrity=integrity)
    return f"umask 077\ncat > /etc/cryptpilot/volumes/{volume}.toml << 'END OF FILE'\n{text}END OF FILE\n"


NO_SHELL = (
    r"cryptpilot: this boot has failed, .* there is no shell in this image, and the machine is turned off in 60 s"
)
"""What stands on the console in the end when a boot cannot go on; the machine turns itself off a minute later."""
EXEC_KEY = bytes(range(64))
"""A passphrase for `exec_volume`: key material, so that nobody stretches it, which takes long."""
NO_VOLUMES = f"rm -f /etc/cryptpilot/volumes/*; base64 -d <<< {base64.b64encode(EXEC_KEY).decode()} > /run/key\n"
"""The shell line that removes what the tree has configured, and puts a passphrase where `exec_volume` finds it."""


def settings(*, verbose: bool = False, timeout: int = 60, emergency_shell: bool = False, ask: bool = False) -> str:
    """Write a global.toml."""
    lines = {"verbose": verbose, "timeout": timeout, "emergency_shell": emergency_shell, "ask": ask}
    return "".join(["[boot]\n", *(f"{key} = {str(value).lower()}\n" for key, value in lines.items())])


def install(tree: Path) -> Path:
    """Install the product into a tree with `build.py install`, and what the lab has on its machines."""
    python = os.environ.get("PYTHON", "/usr/bin/python3")
    run([python, CHECKOUT / "build.py", "install", "--destdir", tree])
    return equip(tree)


def equip(tree: Path) -> Path:
    """Put into a tree what types the steps of a test in the booted system, and what reports of it."""
    guest = Path(__file__).with_name("guest")
    run(["cp", "-r", f"{guest}/.", tree])
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in ("lab-steps.service", "lab-report.service"):
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    return tree


def installed_tree(destination: Path, extra: Sequence[str] = (), release: str = "", *, quick: bool = True) -> Path:
    """Make a tree with the product installed; `extra` are more packages in it.

    release: the Debian release; without it Debian 12. quick: have its dracut compress little; as well as can be, which
    is the default, takes half a minute of processor time an image.
    """
    tree = install(clone(root_tree(release or "bookworm", extra), destination))
    return compress_little(tree) if quick else tree


def compress_little(tree: Path) -> Path:
    """Have a tree's dracut compress images little."""
    (tree / "etc/dracut.conf.d/90-lab.conf").write_text('compress="gzip -n -1"\n')
    return tree


def configure(tree: Path, volumes: Mapping[str, str], global_file: str = "") -> None:
    """Write the configuration into a tree; `volumes` are file contents by volume name."""
    directory = tree / "etc/cryptpilot"
    files = {directory / "volumes" / f"{name}.toml": text for name, text in volumes.items()}
    if global_file:
        files[directory / "global.toml"] = global_file
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o600)


def make_root_disk(site: Site, tree: Path, work: Path, more: str = "") -> Disk:
    """Make a disk whose root is a LUKS2 volume, in user-mode Linux.

    There the installed `cryptpilot init` formats it with a secret from the stand-in, `cryptpilot open` opens it, and
    the tree is unpacked into it. more: shell lines to be run in the end.
    """
    disk = Disk(blank_disk(work / "root.img", ROOT_DISK_BYTES), ROOT)
    if not (work / "root.tar").exists():
        make_archive(work / "root.tar", prune(tree, work / "pruned"))
    archive = Disk(work / "root.tar", "archive", readonly=True)
    script = f"""
cryptpilot init {ROOT} --yes
cryptpilot open {ROOT}
{fill_script(archive.device, f"/dev/mapper/{ROOT}")}
cryptpilot close {ROOT}
{more}
"""
    run_with_kms(site, tree, script, disks=[disk, archive], timeout=180).check()
    return disk


def run_with_kms(
    site: Site,
    tree: Path,
    script: str,
    *,
    disks: Sequence[Disk] = (),
    modules: Sequence[str] = (),
    memory: str = "1G",
    timeout: float = 120,
    kms: Sequence[str] = (),
) -> UmlResult:
    """Run a bash script in an installed tree in user-mode Linux, where the site's KMS answers at its real name.

    kms: more options of the KMS. It runs with the host's Python beside the tree, which has none.
    """
    lines = f"""
cd {CHECKOUT}
echo "127.0.0.1 {GATEWAY}" >> /etc/hosts
PYTHONDONTWRITEBYTECODE=1 {" ".join([*kms_command(site, SHARE, "/run/kms-ready"), *kms])} &
mkdir {KMS_FILES}; mount --bind {SHARE} {KMS_FILES}
mount --bind {tree} {tree}
for point in dev proc sys run; do mount --rbind /$point {tree}/$point; done
cp /etc/hosts {tree}/etc/hosts
until [ -e /run/kms-ready ]; do sleep 0.05; done
chroot {tree} /bin/bash -eu << 'END OF SCRIPT'
{script}
END OF SCRIPT
"""
    return run_uml(Path("/"), lines, disks=disks, modules=modules, memory=memory, timeout=timeout, share=site.directory)


@dataclass(frozen=True)
class Image:
    """An initrd as dracut made it. output: what dracut said."""

    path: Path
    output: str


def make_image(tree: Path, path: Path, *options: str, made: datetime.datetime | None = None) -> Image:
    """Make the initrd of a configured tree. made: when it says that it was made, None for now."""
    env = {"SOURCE_DATE_EPOCH": str(int(made.timestamp()))} if made else None
    return Image(path, make_initrd(tree, path, *options, env=env))


def machine(tree: Path, image: Image, disks: tuple[Disk, ...], network: Namespace | None) -> Machine:
    """Put a machine together. It may write to its disks: give it copies."""
    return Machine(
        kernel=kernel(tree),
        initrd=image.path,
        cmdline=f"{CONSOLE} root=/dev/mapper/{ROOT} rw",
        disks=disks,
        netns=network,
    )


def report_disk(path: Path) -> Disk:
    """Make the disk on which the booted system leaves its report."""
    return Disk(blank_disk(path, REPORT_BYTES), REPORT)


def read_report(disk: Disk) -> dict[str, str]:
    """Return the files of a report, by name. A system that left none did not come up."""
    try:
        with tarfile.open(disk.path) as archive:
            members = [member for member in archive if member.isfile()]
            files = {
                Path(member.name).name: archive.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
                for member in members
            }
    except tarfile.ReadError:
        files = {}
    if not files:
        raise LabError(f"{disk.path}: the booted system left no report")
    return files


def events(report: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the machine's event log."""
    return [json.loads(line) for line in report["events.jsonl"].splitlines()]
