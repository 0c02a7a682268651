"""Boot loader entries, and the variables in them. Pure.

An entry is a file for each kernel, which GRUB's command `blscfg` reads as it boots. Enterprise Linux 8 and its
relatives (Anolis 8, Alibaba Cloud Linux 3) keep kernel parameters in the variable `kernelopts` of GRUB's environment
block, with a copy in grub.cfg, in case that block cannot be read; Enterprise Linux 9 keeps them in each entry, and
takes those of the next kernel from /etc/kernel/cmdline.

Source: the Boot Loader Specification, "Type #1"; the manual of GRUB, "Environment block"; 10_linux, 20-grub.install
and blscfg.c of GRUB in Fedora and Enterprise Linux; issues 1828 and 2129 of osbuild-composer, 979 of lxc-ci.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import grub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Loader

DIRECTORY = "/boot/loader/entries"
COMMAND_LINES = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline")
"""Where kernel-install takes the parameters of a new kernel from: the first that is there."""
PARAMETERS = "kernelopts"
"""The variable that holds kernel parameters."""
PLACE = "blsdir"
"""The variable that has GRUB read entries elsewhere than in its default places."""

_PATHS = re.compile(r"^([ \t]*(?:linux|initrd|devicetree)[ \t]+)(.*)$", re.MULTILINE)
_OPTIONS = re.compile(r"^([ \t]*options[ \t]+)(.*)$", re.MULTILINE)
_READS = re.compile(r"^[ \t]*blscfg[ \t]*(?:;.*|#.*)?$", re.MULTILINE)
_FALLBACK = re.compile(rf'^([ \t]*set {PARAMETERS}=")([^"\n]*)(")', re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SETTING = re.compile(r"^([A-Za-z_]\w*)=((?:[^\\\n]|\\.)*)$", re.MULTILINE | re.DOTALL)
_BOOT = re.compile(r"(?<!\S)/boot(?=/)")


def are_read(configuration: str) -> bool:
    """Tell whether a configuration of GRUB has the entries read."""
    return bool(_READS.search(configuration))


def values(entry: str, key: str) -> str:
    """Return what an entry says of a key, on however many lines, as GRUB joins it."""
    lines = [line.split(None, 1) for line in entry.split("\n")]
    return " ".join(line[1].strip() for line in lines if len(line) == 2 and line[0] == key)


def kernel_file(entry: str) -> str:
    """Return the kernel that an entry loads, as a path below /boot."""
    return below_boot(values(entry, "linux"))


def below_boot(path: str) -> str:
    """Return a path that an entry has, which begins at the root of a file system, as one below /boot."""
    return f"/boot/{path.removeprefix('/boot/').lstrip('/')}"


def resolved(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with GRUB's variables replaced; one that is not set is nothing."""
    return _VARIABLE.sub(lambda name: variables.get(name[1] or name[2], ""), text)


def environment(block: str) -> dict[str, str]:
    """Return what an environment block of GRUB sets."""
    return {one[1]: re.sub(r"\\(.)", r"\1", one[2], flags=re.DOTALL) for one in _SETTING.finditer(block)}


def variables(loader: Loader) -> Iterator[dict[str, str]]:
    """Yield what may be set while entries are read: for each configuration with each environment block."""
    for configuration in loader.configurations.values():
        if are_read(configuration):
            copy = _FALLBACK.search(configuration)
            known = {PARAMETERS: copy[2]} if copy else {}
            for text in loader.environments.values() or [""]:
                yield {**known, **environment(text)}


def linux(entry: str, known: Mapping[str, str]) -> grub.Linux:
    """Return what an entry boots. known: variables."""
    line = f"{values(entry, 'linux')} {values(entry, 'options')}"
    return grub.Linux(resolved(line, known), initrd=bool(initrds(entry, known)))


def initrds(entry: str, known: Mapping[str, str]) -> list[str]:
    """Return the images that an entry loads, as paths below /boot. known: variables."""
    return [below_boot(path) for path in resolved(values(entry, "initrd"), known).split()]


def kernels(loader: Loader) -> list[grub.Linux]:
    """Return what is booted by entries, whatever is set."""
    return [linux(text, known) for known in variables(loader) for _, text in sorted(loader.entries.items())]


def entry(text: str, volume: Volume, *, moved: bool) -> str:
    """Return an entry with the volume as the root. moved: whether /boot is no longer a directory of the root."""
    text = _OPTIONS.sub(lambda line: line[1] + grub.command_line(line[2], volume), text)
    return _PATHS.sub(lambda line: line[1] + _BOOT.sub("", line[2]), text) if moved else text


def block(text: str, volume: Volume) -> str:
    """Return an environment block with the volume as the root, of whatever length it then is."""

    def changed(one: re.Match[str]) -> str:
        return f"{one[1]}={grub.command_line(one[2], volume)}" if one[1] == PARAMETERS else one[0]

    return _SETTING.sub(changed, text)


def configuration(text: str, volume: Volume) -> str:
    """Return a configuration of GRUB that reads entries, with the volume as the root in its copy of the parameters."""
    return _FALLBACK.sub(lambda line: line[1] + grub.command_line(line[2], volume) + line[3], text)
