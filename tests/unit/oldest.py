"""The oldest platform that the product meets, as far as it uses that: Enterprise Linux 8, Anolis 8 and their kin.

Each table is an allow list of names with where they were read. What is not in a table is not known there, and needs a
fallback that is stated here. tests/boot/test_platform.py holds the same against the newest one, and those in between.
"""

from __future__ import annotations

SECTIONS = {
    "Unit": {
        *("Description", "Documentation", "SourcePath", "DefaultDependencies", "IgnoreOnIsolate"),
        *("After", "Before", "Requires", "Wants", "BindsTo", "Conflicts"),
        *("ConditionPathExists", "ConditionKernelCommandLine"),
        *("OnFailure", "OnFailureJobMode", "JobTimeoutSec"),
    },
    "Service": {
        *("Type", "RemainAfterExit", "ExecStartPre", "ExecStart", "ExecStop", "TimeoutStartSec", "TimeoutStopSec"),
        *("KillMode", "SyslogIdentifier", "StandardOutput", "StandardError", "Slice"),
    },
    "Mount": {"What", "Where", "Type", "Options"},
    "Install": {"WantedBy"},
    # of a .network file: systemd 239, src/network/networkd-network-gperf.gperf
    "Match": {"Type"},
    "Network": {"DHCP"},
}
"""What systemd 239 knows in its files: src/core/load-fragment-gperf.gperf.m4, src/shared/install.c."""

YOUNGER_SETTINGS = {
    ("Service", "ExecCondition"): "systemd 243. Older ones pass over it: what competes with a volume is known to the"
    " generator, or was left out of the image (units/passing_over.py)",
    ("Match", "Kind"): "systemd 245. Older ones pass over it: no dracut that is that old brings systemd-networkd",
}
"""Settings that systemd 239 does not know: since when there are, and what is done without."""

DRACUT = {
    # dracut-functions.sh
    *("find_binary", "expand_persistent_dev"),
    # dracut-init.sh
    *("inst_simple", "inst_multiple", "inst_script", "inst_hook", "inst_rules", "inst_libdir_file", "instmods"),
    "dracut_module_included",
    # dracut-logger.sh
    "dfatal",
}
"""Functions that dracut 049 has for a module's set-up, in the files named."""

DRACUT_HOOKS = {"getargbool", "emergency_shell"}
"""Functions that dracut 049 has for hooks: modules.d/99base/dracut-lib.sh."""

BASH = {
    *(".", "[", ":", "break", "command", "compgen", "continue", "echo", "exec", "exit", "export", "kill", "local"),
    *("mapfile", "printf", "read", "return", "set", "shift", "trap", "true", "unset"),
}
"""Built into bash 4.4."""

SH = BASH - {"compgen", "local", "mapfile"}
"""Built into any POSIX shell."""

BUILD_PROGRAMS = {
    "blkid": {"-o", "-p", "-s", "-u"},  # util-linux 2.32
    "cat": set(),
    "chmod": set(),
    "chroot": set(),
    "grep": {"-a", "-o", "-q"},
    "ldd": set(),  # glibc
    "ln": {"-s"},
    "mkdir": {"-p"},
    "modinfo": {"-k"},  # kmod 25
    "readlink": {"-f"},
    "rm": set(),
    "sed": {"-n"},
    "sort": {"-u"},
    "stat": {"-L", "-c"},
    "systemctl": {"-q", "--root"},
    "tr": {"-d"},
}
"""What the dracut module runs on the machine that makes an image: coreutils 8.30, grep 3.1, and what is said."""

RUN_PROGRAMS = {
    "cat": set(),
    "cryptsetup": set(),
    "dd": set(),
    "grep": {"-F", "-f", "-q", "-s", "-v"},
    "mkdir": {"-m", "-p"},
    "mv": {"-f"},
    "plymouth": set(),  # only if it is there
    "readlink": {"-f"},
    "rm": {"-f"},
    "sh": {"-c"},
    "sleep": set(),
    "systemctl": {"--force", "--no-block", "--property"},  # only where systemd is
}
"""What our scripts run at boot, in an image or in the system."""

OPTIONS = {
    "block.py": {"blkid": {"-p", "-n", "-o"}, "wipefs": {"--all", "--no-act"}},
    "clone.py": {
        "dumpe2fs": {"-h"},
        "e2fsck": {"-f", "-n"},
        "e2image": {"-ra", "-p"},
        "xfs_copy": {"-L", "-d"},
        "xfs_logprint": {"-t"},
        "xfs_repair": {"-n"},
    },
    "composite.py": {
        "cryptsetup": {"--header", "--readonly", "--version"},
        "dmsetup": {"--deferred", "--nolockfs", "--readonly", "--table", "--uuid"},
    },
    "cryptsetup.py": {
        "cryptsetup": {
            *("--allow-discards", "--batch-mode", "--cipher", "--hash", "--header", "--integrity", "--json-file"),
            *("--integrity-no-journal", "--integrity-no-wipe", "--key-file", "--key-size", "--offset", "--pbkdf"),
            *("--pbkdf-force-iterations", "--readonly", "--sector-size", "--serialize-memory-hard-pbkdf", "--size"),
            *("--label", "--subsystem", "--test-passphrase", "--token-id", "--type", "--verbose"),
        }
    },
    "disk_image.py": {"qemu-img": {"--output", "-f", "-O", "-o", "-p"}},  # qemu 2.12
    "dracut.py": {
        "cpio": {"--quiet", "-o", "-H"},
        "cryptpilot": {"--kernel"},
        "dracut": {"--force", "--kver", "--tmpdir"},
        "gzip": {"-n"},
        "lsinitrd": {"--unpack"},
        "lz4": {"-l"},
        "sh": {"-c"},
        "wc": {"-c"},
        "xz": {"--check", "--lzma2", "-T0"},
        "zstd": {"-q", "-T0", "-c"},
    },
    "drafts.py": {"ulimit": {"-f"}},
    # of cryptsetup 2.3.7 and 2.4.3, whose header says online-reencrypt-v2: what an older one prepares is refused
    "encryption.py": {
        "cryptsetup": {
            *("--batch-mode", "--encrypt", "--init-only", "--key-file", "--reduce-device-size", "--resume-only"),
            *("--sector-size", "--subsystem", "--type"),
        }
    },
    "exitrd.py": {"mount": {"--rbind", "-o"}},
    "ext4.py": {"dumpe2fs": {"-h"}, "e2fsck": {"-f", "-n", "-y"}, "resize2fs": {"-P"}, "tune2fs": {"-M"}},
    "fat.py": {"mcopy": {"-i", "-n"}, "mdir": {"-b", "-i"}},  # mtools 4.0.18
    "foreign_root.py": {
        "unshare": {"--fork", "--ipc", "--kill-child", "--mount-proc", "--net", "--pid", "--uts"},
    },
    "foreign_tools.py": {
        "apt-get": {"--no-install-recommends", "--yes", "-o"},
        "cp": {"--archive", "--remove-destination"},
        "cryptpilot": {"--all"},
        "dracut": {"--no-hostonly"},
        "find": {"-delete", "-mindepth", "-xdev"},
        "grub-mkconfig": {"-o"},
        "rpm": {"--replacepkgs", "--upgrade"},
        "sync": {"--file-system"},
    },
    "growfs.py": {"e2fsck": {"-f", "-p"}},
    "header_file.py": {"cryptsetup": {"--batch-mode", "--header-backup-file"}},
    "init.py": {
        "mount": {"--bind"},
        "sh": {"-c"},
        "systemctl": {"--job-mode", "--no-block", "--property", "--quiet"},
        "unshare": {"--mount"},
    },
    "lock.py": {"fuser": {"--verbose"}, "ls": {"-ld"}},
    "loop.py": {"losetup": {"--list"}},
    "luks_data.py": {"cryptsetup": {"--resume-only"}},
    "luks_header.py": {"cryptsetup": {"--resume-only"}},
    "lvm.py": {
        "dmsetup": {"--readonly", "--retry", "--uuid"},
        "pvs": {
            *("--config", "--driverloaded", "--foreign", "--nosuffix", "--options", "--readonly", "--reportformat"),
            *("--segments", "--units"),
        },
    },
    "mapper.py": {"dmsetup": {"--columns", "--noheadings", "--separator", "-o"}},
    "mkfs.py": {
        "e2fsck": {"-f", "-p"},
        "fsck.vfat": {"-a"},
        "mkfs.ext4": {"-F", "-E", "-O", "-b", "-n"},
        "mkfs.vfat": {"-I", "-S"},
        "mkfs.xfs": {"-f", "-s", "-N"},
        "mkswap": {"-f"},
        "xfs_logprint": {"-t"},
        "xfs_repair": {"-n"},
    },
    "mounts.py": {"mount": {"-o", "-t"}, "umount": {"--recursive"}},
    "partition_table.py": {
        "sfdisk": {"--json", "--no-reread", "--no-tell-kernel", "--part-label", "--part-uuid", "--quiet"}
    },
    "person.py": {
        "plymouth": {"--ping", "--prompt"},
        "systemd-ask-password": {"--icon", "--id", "--no-tty", "--timeout"},
    },
    "portable_executable.py": {
        "objcopy": {"--add-section", "--change-section-vma", "--only-section", "--output-target"},
        "objdump": {"--section-headers", "--wide"},
        "pesign": {"--hash", "--in"},
        "sbsign": {"--cert", "--key", "--output"},
    },
    "process.py": {"ulimit": {"-l"}},
    "programs.py": {"findmnt": {"--target"}, "ls": {"-l"}, "sed": {"-i"}},
    "qrcode.py": {"qrencode": {"--output", "--type"}},
    "relabel.py": {"setfiles": {"-e", "-f"}},
    # util-linux 2.33 has it: for `convert` alone, whose documentation says so
    "run.py": {"setpriv": {"--pdeathsig"}},
    "workplace.py": {"mkdir": {"--mode"}, "mount": {"-o"}},
}
"""What the modules of cryptpilot_boot/system give to programs, or have a person give them, by the manual of each.

util-linux 2.32 (its blkid has short options only), cryptsetup 2.2, device-mapper 1.02, systemd 239, dracut 049,
e2fsprogs 1.45, xfsprogs 5.0, dosfstools 4.1, coreutils 8.30, zstd 1.4, binutils 2.30, pesign 0.112, sbsigntool 0.9,
lvm2 2.02.176, policycoreutils 2.8, apt 1.8, rpm 4.14.
"""
