"""What `--help` says of the commands, beyond a line."""

from __future__ import annotations

EPILOG = """\
exit status:
  0    all is as it was to be; what was open, or closed, already is that too
  1    something failed; what was asked of the other volumes was done
  2    the command line is wrong, or a file of the configuration
  130  interrupted; nothing was left half open

Volumes are described in /etc/cryptpilot/volumes/*.toml, one file each. When one of them is wrong, init, open
--overwrite, initrd plan and initrd rebuild do nothing; other commands go on with the others.
"""

INIT = """\
Makes a LUKS2 volume of each volume's device, and the file system that makefs names. What the device held is lost, so
it is said what that is, and asked. A device that is in use is always refused; one that holds anything unless that is
named with --overwrite. After an interruption or a power cut run it again.
"""

ADOPT = """\
Takes LUKS2 volumes that another program made, with all their data: cryptpilot 0.1 to 0.3.2, cryptsetup, clevis. Each
has to be opened by the secret that its file names; then its header gets the mark of cryptpilot, and the name is bound
to it, as init does. Nothing else is changed, and nothing is ever overwritten. The volume may be open or in use, and
stays so. After an interruption or a power cut run it again.
"""

CONVERT = """\
Writes a new image: the same system, with its root in a LUKS2 volume that is opened at boot, and cryptpilot installed in
it. IN is only read. OUT gets its name when it is whole, and is not there before. What cannot be converted is refused
before anything is written; --dry-run finds that out. The image's own dracut and GRUB are run, as root, in the new
image: convert only images that you would boot. /boot stays readable for the host, with the client key in the initrd.
With --device, the root of a disk that is attached here is encrypted where it is; after an interruption, or a power cut,
the same command goes on. Have a backup: no program can keep a disk from failing meanwhile.
"""

MEASURE = """\
Computes what a verifier has to expect of a machine that boots a disk image by UEFI and a unified kernel image: digests
of boot loader, kernel, initrd and command line, and the values of PCR 4, 5, 9, 11 and 12 once the kernel has started.
The image is only read. What cannot be computed exactly is refused, with the reason and exit status 1. Values of TDX's
RTMR[1] and RTMR[2] follow from the same events; they have not been compared with a real machine.
"""

UNIFY = """\
For a machine that boots by a unified kernel image, after its kernel or its configuration has changed: makes that image
again, of the kernel, initrd and command line that GRUB would start by default. The initrd is checked first, and the old
image stays until the new one is whole. What the machine measures at the next boot is another then: let the verifier
know before.
"""

OPEN = """\
Opens each volume as /dev/mapper/VOLUME, all of them side by side. A temporary volume (one-time password) is made anew:
what it held is gone. Opening what is open is no error. A device that holds anything else a temporary volume takes only
if that is named with --overwrite, after a question.
"""

ENROLL = """\
Adds a key slot for the current secret of SOURCE to a persistent volume, open or closed, so that it opens by that too.
SOURCE is one that the volume's file has: "encrypt" for its [encrypt] table, "fallback1" for the first [[fallback]],
and so on; or the name of a key provider that only one of them has. Another source of the volume has to open it, or its
recovery key. "init" does this for all sources of a new volume. Removes nothing; where SOURCE opens the volume already,
nothing is changed. A source that keeps its key sealed in the volume's header, such as the TPM, gets a new key, sealed
to what the machine has started, as after a kernel update; the older key is removed once the new one was tried."""

ROTATE = """\
Moves each volume to the current value of its secret, after KMS has rotated that: adds a key slot for the current
value, tries it, and only then removes the one for the previous value. The volume may be open or closed, and stays so.
At no moment is it without a key; after an interruption or a power cut run it again. Other key slots are left alone.
"""

BIND = """\
Binds each volume to what its device holds now, if the volume's secret opens that: from then on no other LUKS2 volume
is opened under this name, even if the same secret opens it. init does that by itself. Bind volumes that older versions
made, and bind again after "cryptsetup reencrypt" or a deliberate exchange of disks. The volume may be open or closed.
"""

RESIZE = """\
Has each open volume fill its device after that was enlarged, and its file system the volume: ext4 at once, xfs while it
is mounted. It stays open and in use meanwhile. A partition has to be enlarged first, with growpart or parted. A volume
with integrity keeps its size, and nothing is ever made smaller. After an interruption or a power cut run it again.
"""

RECOVERY_KEY = """\
Enrolls a new random recovery key, beside the volume's secret: with it "cryptpilot open --recovery-key" opens the volume
without a key provider and without a network, and so does any program that opens LUKS2. It is written to standard
output once, on a terminal as a QR code too; whoever has it opens the volume, so keep it as safe as the data, and apart.
"""

HEADER = """\
The header of a volume, at the beginning of its device, holds what its key is made of: without it nobody reads the data
again, whatever secret he has. A backup of it is 16 MiB, and opens nothing by itself.
"""

BACKUP = """\
Writes the header of a volume, open or not, to a new file. Whoever has the file, and a secret or recovery key that opens
the volume now, can always open it: also when they have been replaced. Make a new one when they have been.
"""

RESTORE = """\
Puts the header of a closed volume back, if the file is a sound one of that volume: the header that is there has to be
of the same volume; where that is lost or damaged, the volume is opened by the file first, without writing to it, to see
whether there is a file system. A header that the secret opens no more is not put back either, nor is one of another
volume ever replaced. After a power cut run it again.
"""

CHECK = """\
Finds out by day what would fail at night: for each volume whether its files can be used, its device is there and
sound, its key provider answers, and whether the key opens it. Nothing is opened or changed.
"""

REPORT = """\
Shows what the boot agent did in this boot, in the initrd and after it: each step with when it began and how long it
took, with waits and failures marked; then for each volume which stage opened it and when, or why it is not open and
what to do. It needs no configuration, and runs in the initrd's emergency shell too. The event log it reads is root's.
"""

INITRD = """\
The initrd has its own copy of the agent and of the configuration of the volumes it opens, so it has to be made anew
after a change. status tells whether it has to be, rebuild does it, check looks whether an image would do its work.
"""

STATUS = """\
Shows for each installed kernel where its image is, whether cryptpilot is in it, whether the configuration and the
agent in it are those of this machine, which volumes it opens, and how many bytes all that adds to it, plain and as
the image is compressed. Exit status 1 when an image is stale or lacks what it needs.
"""

CHECK_IMAGE = """\
Finds out before a reboot whether an image would do its work: unpacks it, runs its agent there, and looks for its
programs, libraries, kernel modules, what starts the agent, and the network if it is needed; and whether it was made
from the configuration and the agent of this machine. An IMAGE from elsewhere is run as well: check what you trust.
"""

REBUILD = """\
Has dracut make the image anew, beside the old one; checks it as "check" does, and only then puts it in place of the
old one. Whatever fails or interrupts that, the old image stays as it was. Says what has changed.
"""
