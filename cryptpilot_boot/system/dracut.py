"""Initrd images and the kernels they are for.

Uses: dracut, lsinitrd (dracut 049 or newer), chroot (coreutils), find (findutils), cpio, what compressed an image, and
objcopy (binutils) where the image is part of a unified kernel image.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Callable

from cryptpilot_boot.errors import CryptpilotError, ProgramError, nearest
from cryptpilot_boot.system import files, selinux, workplace
from cryptpilot_boot.system.programs import is_there, located
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

_KERNELS = Path("/lib/modules")
# Where boot loaders have their files; see kernel-install(8), $BOOT_ROOT.
_BOOT_ROOTS = ("efi", "boot", "boot/efi")
UNIFIED_DIRECTORIES = tuple(f"/{boot}/EFI/Linux" for boot in _BOOT_ROOTS)
# What says how a boot loader's directory for a system may be called.
ENTRY_TOKEN = "/etc/kernel/entry-token"  # noqa: S105 - nothing secret
MACHINE_ID = "/etc/machine-id"
OS_RELEASE = "/etc/os-release"
# What dracut, or kernel-install with an image it is given, names the image of a kernel in that kernel's own directory.
_ENTRY_NAMES = ("initrd", "initrd.img-{kernel}")
# Where dracut and the distributions put it else.
_PLACES = (
    "/boot/initrd.img-{kernel}",
    "/boot/initramfs-{kernel}.img",
    "/boot/initrd-{kernel}",
    "/lib/modules/{kernel}/initrd",
    "/lib/modules/{kernel}/initramfs.img",
)
# How an archive begins that a program has compressed, and the program with the options dracut gives it.
_COMPRESSORS = {
    b"\x1f\x8b": ("gzip", "gzip -n -9"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -15 -q -T0 -c"),
    b"\xfd7zXZ": ("xz", "xz --check=crc32 --lzma2=dict=1MiB -T0"),
    b"BZh": ("bzip2", "bzip2 -9"),
    b"\x02\x21": ("lz4", "lz4 -l -9"),
    b"\x89LZO": ("lzop", "lzop -9"),
}
_NOT_COMPRESSED = "nothing"
_EFI = b"MZ"  # how an EFI program begins
_CPIO = b"070701"  # cpio(5), "newc"
_CPIO_HEADER = 110  # bytes: the magic number and 13 fields of 8 hexadecimal digits
_HINT = "rebuild it: cryptpilot initrd rebuild"
_SQUASHED = ("squash-root.img", "squashfs-root.img", "erofs-root.img", "squash/root.img")


def is_usable() -> bool:
    """Tell whether this machine makes its images with dracut, and this process may look into them."""
    return os.geteuid() == 0 and is_there("lsinitrd") and is_there("dracut")


def require_usable() -> None:
    """Raise CryptpilotError if there is no dracut, or if this process may not read images."""
    if os.geteuid() != 0:
        raise CryptpilotError("only root can look into initrd images: they hold client keys", "run this as root")
    if not is_usable():
        raise CryptpilotError(
            "dracut is not installed, so this machine has no initrd images that cryptpilot could be in",
            "install dracut: it makes the initrd, with cryptpilot in it",
        )


def running_kernel() -> str:
    """Return the release of the kernel that runs."""
    return os.uname().release


def kernels(directory: Path = _KERNELS) -> list[str]:
    """Return the releases of the kernels that are installed, oldest first."""
    found = (
        path.name
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (path / "modules.dep").exists() or (path / "vmlinuz").exists()
    )
    return sorted(found, key=lambda name: [(not part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", name)])


def images(kernel: str, root: Path = Path("/")) -> list[Path]:
    """Return the images of a kernel: none, one, or several, when it is not known which the boot loader takes."""
    texts = [_text(root / name[1:]) for name in (ENTRY_TOKEN, MACHINE_ID, OS_RELEASE)]
    found = [path for place in image_places(kernel, *texts) if (path := root / place[1:]).is_file()]
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def image_places(kernel: str, entry_token: str, machine_id: str, os_release: str) -> list[str]:
    """Return where images of a kernel may be, by what these files hold. Pure."""
    tokens = _entry_tokens(entry_token, machine_id, os_release)
    names = [name.format(kernel=kernel) for name in _ENTRY_NAMES]
    places = [f"/{boot}/{token}/{kernel}/{name}" for boot in _BOOT_ROOTS for name in names for token in tokens]
    return list(dict.fromkeys([*places, *(place.format(kernel=kernel) for place in _PLACES)]))


def _entry_tokens(entry_token: str, machine_id: str, os_release: str) -> list[str]:
    """Return what a boot loader's directory for this system may be called; see kernel-install(8), "--entry-token"."""
    system = dict(line.partition("=")[::2] for line in os_release.splitlines())
    names = [system.get(name, "").strip("\"'") for name in ("IMAGE_ID", "ID")]
    found = [_first_line(entry_token), _first_line(machine_id), *names, "Default"]
    return [name for name in dict.fromkeys(found) if name and "/" not in name and not name.startswith(".")]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def unified_images(kernel: str, root: Path = Path("/")) -> list[Path]:
    """Return the unified kernel images of a kernel: EFI programs that hold the kernel and its image.

    They are known by their names, TOKEN-KERNEL.efi by kernel-install or linux-KERNEL-MACHINE.efi by dracut, either with
    the boots it has left to prove itself.
    """
    is_name = unified_name(kernel)
    places = [root / directory[1:] for directory in UNIFIED_DIRECTORIES]
    found = [path for place in places for path in sorted(place.glob("*.efi")) if is_name(path.name)]
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def unified_name(kernel: str) -> Callable[[str], bool]:
    """Return what tells whether a file of some name is a unified image of a kernel. Pure."""
    name = re.compile(rf"(.*-)?{re.escape(kernel)}(-[0-9a-f]{{32}}.*)?(\+[0-9-]+)?\.efi")
    return lambda text: bool(name.fullmatch(text))


def all_images(kernel: str) -> list[Path]:
    """Return the images of a kernel and its unified ones."""
    return [*images(kernel), *unified_images(kernel)]


def is_unified(image: Path) -> bool:
    """Tell whether an image is a unified kernel image, as boot loaders know it: by its name."""
    return image.suffix == ".efi"


def kernel_file(kernel: str) -> Path:
    """Return where a kernel itself is, for kernel-install(8)."""
    known = modules_directory(kernel) / "vmlinuz"
    return known if known.exists() else Path(f"/boot/vmlinuz-{kernel}")


def kernel_places(kernel: str) -> tuple[str, str]:
    """Return where a kernel itself may be. Pure."""
    return f"/boot/vmlinuz-{kernel}", f"/lib/modules/{kernel}/vmlinuz"


def require_images(kernel: str) -> list[Path]:
    """Return the images of a kernel, unified ones included. Raises CryptpilotError without any."""
    found = all_images(kernel)
    if not found:
        known = kernels()
        near = nearest(kernel, known)
        hint = f"did you mean --kernel {near}?" if near else f"installed kernels: {', '.join(known) or 'none'}"
        raise CryptpilotError(
            f"there is no image of kernel {kernel}", f"make one: dracut --kver {kernel}" if kernel in known else hint
        )
    return found


def modules_directory(kernel: str) -> Path:
    """Return where a kernel's modules are."""
    return _KERNELS / kernel


def unpack(image: Path, directory: Path, pattern: str = "") -> None:
    """Unpack an image into an empty directory; pattern: only the paths that match it, see cpio(1).

    Raises ProgramError when it cannot be read to its end, CryptpilotError if it holds an image of an unsupported kind.
    """
    with image.open("rb") as file:
        program = file.read(len(_EFI)) == _EFI
    if program and not is_there("objcopy"):
        raise CryptpilotError(
            f"{image} is a unified kernel image, into which cryptpilot can look only with objcopy",
            "install binutils, which has objcopy",
        )
    by = compressor(image)
    if by != _NOT_COMPRESSED and not is_there(by):
        raise CryptpilotError(f"{image} is compressed by {by}, which is not installed", f"install {by}")
    parts = directory.with_name(f"{directory.name}.work")
    parts.mkdir(mode=0o700)
    argv = ["lsinitrd", "--unpack", str(image.absolute()), *([pattern] if pattern else [])]
    try:
        # an image that is part of an EFI program is cut out of it first, into TMPDIR
        run(argv, cwd=str(directory), env={"TMPDIR": str(parts)})
    except ProgramError as error:
        workplace.require_room_left(f"{image} was unpacked", directory)
        raise ProgramError(f"{image} cannot be unpacked: {error.what}", _HINT, status=error.status) from None
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    if any((directory / name).exists() for name in _SQUASHED):
        raise CryptpilotError(
            f"{image} holds a squashed image, into which cryptpilot does not look",
            'make it without dracut\'s module squash: omit_dracutmodules+=" squash " in /etc/dracut.conf',
        )


def run_within(tree: Path, argv: Sequence[str]) -> str:
    """Run a program in an unpacked image as if that was all there is, and return its standard output.

    Raises ProgramError, the program's own words in it.
    """
    return run(["chroot", str(tree), *argv])[1]


def require_libraries(tree: Path, program: str) -> None:
    """Let the loader of an unpacked image find the libraries of a program in it. Raises ProgramError.

    The loader then lists what it would load, and does not start the program; see ld.so(8).
    """
    listing = run_within(
        tree, ["/bin/sh", "-c", 'PATH=/usr/sbin:/usr/bin:/sbin:/bin LD_TRACE_LOADED_OBJECTS=1 exec "$1"', "sh", program]
    )
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if missing:
        raise ProgramError(f"{program} lacks {', '.join(missing)}")


def make_image(image: Path, kernel: str, options: Sequence[str], directory: Path) -> None:
    """Let dracut make the image of a kernel, in `directory` until it is complete.

    Raises ProgramError, CryptpilotError when there was not enough room for it.
    """
    # which dracut has list the modules that it has put there
    selinux.share_directory(located("depmod"), directory, modules_directory(kernel))
    try:
        run(["dracut", "--force", "--tmpdir", str(directory), *options, str(image), kernel])
    except ProgramError:
        workplace.require_room_left("dracut made the image", directory, image.parent)
        raise


def compressor(image: Path) -> str:
    """Return the name of the program that compressed an image; "nothing" if it is not compressed."""
    with image.open("rb") as file:
        start = file.read(6)
        if start == _CPIO:
            # microcode, which the kernel reads early, is a separate archive in front
            with contextlib.suppress(ValueError):  # damaged, which is for others to find out
                _skip_archive(file)
            start = file.read(6)
    names = [name for magic, (name, _) in _COMPRESSORS.items() if start.startswith(magic)]
    return names[0] if names else _NOT_COMPRESSED


def _skip_archive(file: IO[bytes]) -> None:
    """Go to the first byte after a cpio archive and the zeros that fill it up."""
    file.seek(0)
    name = b""
    while name != b"TRAILER!!!\0":
        header = file.read(_CPIO_HEADER)
        if header[:6] != _CPIO or len(header) < _CPIO_HEADER:
            return
        size, length = int(header[54:62], 16), int(header[94:102], 16)
        name = file.read(length)
        file.seek(-(_CPIO_HEADER + length) % 4 + size + -size % 4, os.SEEK_CUR)
    while (byte := file.read(1)) == b"\0":
        pass
    file.seek(-len(byte), os.SEEK_CUR)


def compressed_size(tree: Path, by: str) -> int | None:
    """Return how many bytes the files below `tree` take in an image compressed `by`; None if that is not here."""
    command = dict(_COMPRESSORS.values()).get(by, "cat")
    if not is_there(command.split()[0]):
        return None
    pipeline = f"find . | LC_ALL=C sort | cpio --quiet -o -H newc | {command} | wc -c"
    return int(run(["sh", "-c", pipeline], cwd=str(tree))[1])


def replace(old: Path, new: Path) -> None:
    """Put a complete file into the place of another: after a power cut the one or the other is there, whole."""
    files.sync(new)
    new.replace(old)
    files.sync(old.parent)
