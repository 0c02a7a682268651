"""What the system can carry: in the name of a volume, of a unit, in a path, in a line that a shell reads. Pure.

All that a configuration says and that becomes one of these is held against this module, and nothing else decides it.
Each check returns "", or the complaint.
"""

from __future__ import annotations

import re

from cryptpilot_boot.text import describe, unseen

LONGEST_NAME = 255  # bytes: of a file (NAME_MAX, <linux/limits.h>) and of a unit (systemd.unit(5))
_LONGEST_PATH = 4095  # bytes: PATH_MAX without the NUL
# Names device-mapper and udev leave as they are (libdevmapper escapes all others as \xNN). The kernel takes 127
# bytes; `init` needs some of them for the name of the mapping it works on.
_MAPPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9#+.:=@_-]{0,99}")
# Bytes of a volume's name as part of a unit's: systemd has systemd-makefs@dev-mapper-NAME.service, and a directory
# dev-mapper-NAME.device.requires is needed.
_LONGEST_ESCAPED = 220
# host, IPv4 or [IPv6], and a port if it is not 443
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
# execve(2), "Limits on size of arguments and environment": of one, and of all together
_LONGEST_ARGUMENT = 128 * 1024 - 1  # bytes
_LONGEST_ARGUMENTS = 1024 * 1024  # bytes


def volume(name: str) -> str:
    """Check the name of a volume."""
    if not _MAPPER_NAME.fullmatch(name) or name == "control" or name.endswith("-initializing"):
        return (
            "is not a valid name below /dev/mapper: use up to 100 letters, digits and #+-.:=@_, beginning with a"
            f" letter, a digit or _, and not ending in -initializing{holds(name)}"
        )
    length = len(escape(name))
    if length > _LONGEST_ESCAPED:
        return (
            f"is too long for the names of systemd's units: it takes {length} bytes there, and may take"
            f" {_LONGEST_ESCAPED}; each of # + - = @ takes four"
        )
    return ""


def device(path: str) -> str:
    """Check the path of a block device, in which there are no blanks: udev writes them otherwise."""
    if too_long := _too_long(path):
        return too_long
    if path.startswith("/dev/") and path.isprintable() and " " not in path and ".." not in path.split("/"):
        return ""
    return (
        f'must be a path below /dev, such as "/dev/nvme1n1p1" or "/dev/disk/by-partuuid/..."{holds(path, blank=True)}'
    )


def program(text: str) -> str:
    """Check the path of a program, or its name."""
    must = "must be an absolute path, or the name of a program in /usr/sbin:/usr/bin:/sbin:/bin"
    if too_long := _too_long(text):
        return too_long
    if not text or not text.isprintable() or text != text.strip(" "):
        return must + holds(text, blank=True)
    if text.startswith("/"):
        return ""
    if re.search(r"[ /]|^-", text):
        return f"{must}; arguments go into args" if re.search(r"\S\s+\S", text) else must
    return ""


def arguments(texts: list[str]) -> str:
    """Check the arguments of a program."""
    if any("\0" in text for text in texts):
        return "must not contain NUL"
    lengths = [len(text.encode("utf-8")) for text in texts]
    if max(lengths, default=0) > _LONGEST_ARGUMENT or sum(lengths) + 16 * len(lengths) > _LONGEST_ARGUMENTS:
        return "is more than the kernel passes to a program: 128 KiB an argument, 1 MiB in all"
    return ""


def endpoint(text: str) -> str:
    """Check the address of a gateway."""
    match = _ENDPOINT.fullmatch(text)
    if match and 0 < int((match[2] or ":443")[1:]) < 65536:
        return ""
    return f'must be "host" or "host:port"{holds(text, blank=True)}'


def with_port(address: str) -> str:
    """Return the address of a gateway with its port."""
    return address if ":" in address else f"{address}:443"


def line(value: str) -> str:
    """Check what stands at the end of a line of words, where a shell's `read` gives it back as it is."""
    if not value:
        return "is empty"
    if not value.isprintable() or value != value.strip(" "):
        return f"cannot stand in a line{holds(value, blank=value != value.strip(' '))}"
    return ""


def file(name: str) -> str:
    """Check the name of a file of the configuration: it stands in such lines, and in messages."""
    return f"has a name that cannot stand in a line{holds(name)}" if not name.isprintable() else ""


def unit(name: str) -> str:
    """Check the name of a unit, or of a directory that belongs to one."""
    if len(name.encode("utf-8", "surrogateescape")) <= LONGEST_NAME:
        return ""
    return f"its name has more than {LONGEST_NAME} bytes"


def volume_unit(volume: str) -> str:
    """Return the name of the unit of a volume."""
    return f"cryptpilot@{escape(volume)}.service"


def escape(text: str) -> str:
    """Write a name as it stands in a unit's name; see systemd.unit(5), "String escaping"."""

    def code(byte: int, first: bool) -> str:
        char = chr(byte)
        if char == "/":
            return "-"
        plain = byte < 128 and (char.isalnum() or char in ":_" or (char == "." and not first))
        return char if plain else f"\\x{byte:02x}"

    return "".join(code(byte, place == 0) for place, byte in enumerate(text.encode("utf-8", "surrogateescape")))


def escape_path(path: str) -> str:
    """Write a path as it stands in the name of a mount's or a device's unit."""
    return escape("/".join(part for part in path.split("/") if part and part != ".")) or "-"


def _too_long(path: str) -> str:
    data = path.encode("utf-8", "surrogateescape")
    if len(data) <= _LONGEST_PATH and max(map(len, data.split(b"/"))) <= LONGEST_NAME:
        return ""
    return f"is longer than a path may be: {_LONGEST_PATH} bytes, and {LONGEST_NAME} between two slashes"


def holds(text: str, *, blank: bool = False) -> str:
    """Name the character that is in the way, if it is one that a person may not see. blank: a space is one."""
    char = unseen(text) or (" " if blank and " " in text else "")
    if not char:
        return ""
    return f"; it holds {'a space' if char == ' ' else describe(char)}"
