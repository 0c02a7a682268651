"""What `--help` says of the commands, beyond a line."""

from __future__ import annotations

EPILOG = """\
exit status:
  0    success; opening an open volume, or closing a closed one, counts as success
  1    something failed; other volumes that were named are done
  2    the command line, or a file of the configuration, is wrong
  130  interrupted; nothing was left half open

Volumes are described in /etc/cryptpilot/volumes/*.toml, one file each. If one of the files is wrong, init, convert,
open --overwrite, initrd plan and initrd rebuild do nothing; other commands go on with the other volumes.
"""

INIT = """\
Formats the device of each volume as LUKS2, and makes the file system that makefs names. Destroys everything on the
device: shows what it found there, and asks first. Refuses a device that is in use, and one that holds anything unless
--overwrite names that. After an interruption or a power cut, run it again.
"""

ADOPT = """\
Adopts LUKS2 volumes that another program made, with all their data: cryptpilot 0.1 to 0.3.2, cryptsetup, clevis. The
secret that the file of the volume names must open it; then its header gets the mark of cryptpilot, and the name is
bound to it, as init does. Nothing else is changed, and nothing is overwritten. The volume may be open or in use, and
stays so. After an interruption or a power cut, run it again.
"""

CONVERT = """\
Writes a new image: the same system, with its root in a LUKS2 volume that is opened at boot, and cryptpilot installed.
IN is only read. OUT must not exist, and gets its name when it is complete. An image that cannot be converted is refused
before anything is written; --dry-run tells. The image's own dracut and GRUB are run as root, in the new image:
convert only images that you would boot. /boot stays readable for the host, with the client key in the initrd.
With --device, the root of a disk that is attached here is encrypted in place; after an interruption or a power cut,
run the same command again to continue. Have a backup: the disk may fail meanwhile.
"""

MEASURE = """\
Computes the measurements of a machine that boots a disk image by UEFI and a unified kernel image, for a verifier:
digests of boot loader, kernel, initrd and command line, and PCR 4, 5, 9, 11 and 12 once the kernel has started.
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
Opens volumes as /dev/mapper/VOLUME, several at the same time. A temporary volume (one-time password) is recreated,
empty. Opening an open volume is not an error. If the device of a temporary volume holds anything else, name that with
--overwrite to let the volume take it, after a question.
"""

ENROLL = """\
Adds a key slot for the current secret of SOURCE to a persistent volume, open or closed, so that it opens by that too.
SOURCE is one that the volume's file has: "encrypt" for its [encrypt] table, "fallback1" for the first [[fallback]],
and so on; or the name of a key provider that only one of them has. Another source of the volume has to open it, or its
recovery key. "init" does this for all sources of a new volume. Where SOURCE opens the volume already, nothing is
changed. A source that keeps its key sealed in the volume's header, such as the TPM, always gets a new key, sealed to
what the machine has started, as after a kernel update; the older key is removed once the new one was tried. Nothing
else is removed."""

ROTATE = """\
Moves each volume to the current value of its secret, after KMS has rotated it: adds a key slot for the current
value, tries it, and then removes the one for the previous value. The volume may be open or closed, and stays so. At
each moment one of the values opens it; after an interruption or a power cut, run it again. Other key slots stay.
"""

BIND = """\
Binds each volume to its disk, if the volume's secret opens what is there: from then on no other LUKS2 volume is opened
under this name, even if the same secret opens it. init does that by itself. Bind volumes that older versions made, and
bind again after "cryptsetup reencrypt" or after you have exchanged a disk. The volume may be open or closed.
"""

RESIZE = """\
Grows open volumes to the size of their devices, and the file systems with them: ext4 at once, xfs while it is
mounted. The volume stays in use. Enlarge a partition first, with growpart or parted. A volume with integrity keeps its
size, and nothing is ever made smaller. After an interruption or a power cut, run it again.
"""

RECOVERY_KEY = """\
Enrolls a new random recovery key beside the volume's secret. With it, "cryptpilot open --recovery-key" and any other
program for LUKS2 open the volume, without key provider and network. The key is written to standard output once, on a
terminal also as a QR code. It opens the volume: keep it as safe as the data, and elsewhere.
"""

HEADER = """\
The header at the beginning of a volume's device holds the volume key, encrypted. Without it the data cannot be read
again, with any secret. A backup of it has 16 MiB, and opens nothing by itself.
"""

BACKUP = """\
Writes the header of a volume, open or not, to a new file. With this file, a secret or recovery key that opens the
volume now can always open it, even after it was replaced. Make a new backup after a replacement.
"""

RESTORE = """\
Restores the header of a closed volume. The backup must be sound, and of the same volume as the header on the device. If
that header is lost or damaged, the volume is first opened with the backup, without writing, to look for a file system.
Refuses a backup that the current secret cannot unlock, and never overwrites the header of another volume. After a power
cut, run it again.
"""

CHECK = """\
Finds what would fail at the next boot: for each volume, whether its files can be used, its device is there and sound,
its key provider answers, and the key opens it. Opens and changes nothing.
"""

REPORT = """\
Shows what the boot agent did in this boot, in the initrd and after it: when each step began and how long it took, with
waits and failures marked; then for each volume which stage opened it and when, or why it is not open and what to
do. Needs no configuration, and works in the emergency shell of the initrd. Only root can read the event log.
"""

INITRD = """\
The initrd has its own copy of the agent, and of the configuration of the volumes that it opens. Rebuild it after a
change: status tells whether that is needed, rebuild does it, check finds whether an image would work.
"""

STATUS = """\
Shows for each installed kernel where its image is, whether cryptpilot is in it, whether configuration and agent in it
are those of this machine, which volumes it opens, and how many bytes this adds to it, plain and compressed. Exit status
1 if an image is stale or lacks what it needs.
"""

CHECK_IMAGE = """\
Finds before a reboot whether an image would work: unpacks it, runs its agent, looks for programs, libraries, kernel
modules, the unit or hook that starts the agent, and the network if a volume needs it, and compares it with the
configuration and the agent of this machine. The agent in IMAGE is run: check only images that you trust.
"""

REBUILD = """\
Has dracut make a new image beside the old one, checks it as "check" does, and then replaces the old one. If anything
fails or is interrupted, the old image stays as it was. Shows what has changed.
"""
