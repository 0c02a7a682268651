"""Which images are rebuilt, and what one that fails means for the others; no image is made here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.commands import image_rebuild
from cryptpilot_boot.commands.image_rebuild import Choice
from cryptpilot_boot.config import Boot, Config
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.images import image
from cryptpilot_boot.images.image import UnpackedImage
from cryptpilot_boot.system import dracut, workplace
from tests.unit.test_config import GUIDE_OTP, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KERNELS = ("6.1", "6.2", "6.3")
WITH_AGENT = ("6.1", "6.3")
ALL_INCLUDED = Choice(every=True, included=True)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Images of three kernels, of which the last runs."""
    images = {kernel: tmp_path / f"initrd.img-{kernel}" for kernel in KERNELS}
    for path in images.values():
        path.write_bytes(b"old")

    @contextlib.contextmanager
    def unpacked(path: Path, **_: object) -> Iterator[UnpackedImage]:
        has_agent = any(f"-{kernel}" in path.name for kernel in WITH_AGENT)
        yield UnpackedImage(tmp_path / "tree", has_agent, record=None, size=0)

    monkeypatch.setattr(image, "unpacked", unpacked)
    monkeypatch.setattr(image_rebuild, "required", lambda _: None)
    monkeypatch.setattr(image_rebuild, "identities", lambda _: {})
    monkeypatch.setattr(image_rebuild, "problems_of", lambda *_: ())
    monkeypatch.setattr(image_rebuild, "late", lambda *_: ())
    monkeypatch.setattr(dracut, "kernels", lambda: list(images))
    monkeypatch.setattr(dracut, "all_images", lambda kernel: [images[kernel]])
    monkeypatch.setattr(dracut, "running_kernel", lambda: KERNELS[-1])
    monkeypatch.setattr(workplace, "is_writable", lambda _: True)
    monkeypatch.setattr(workplace, "room", lambda _: 1 << 40)
    monkeypatch.setattr(workplace, "private_directory", lambda *_, **__: contextlib.nullcontext(tmp_path))
    return images


@pytest.fixture
def rebuilt(
    tmp_path: Path, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[bool, list[str], list[str]]]:
    """Rebuilds these images, and tells of which kernels; those named in `full` do not fit."""

    def rebuilt(
        choice: Choice, full: tuple[str, ...] = (), *, volumes: bool = True
    ) -> tuple[bool, list[str], list[str]]:
        config = configure(tmp_path / "etc", GUIDE_OTP) if volumes else Config(tmp_path, Boot(), ())
        said: list[str] = []
        errors: list[str] = []

        def make(new: Path, kernel: str, *_: object) -> None:
            if kernel in full:
                raise CryptpilotError("no room")
            new.write_bytes(b"new")

        for path in images.values():
            path.write_bytes(b"old")
        monkeypatch.setattr(dracut, "make_image", make)
        good = image_rebuild.rebuild(config, choice, [], said.append, lambda error, _: errors.append(error.what))
        kernels = [kernel for kernel in images for line in said if line.startswith(f"{images[kernel]}: rebuilt")]
        assert kernels == [kernel for kernel in images if images[kernel].read_bytes() == b"new"]
        assert len(said) == len(kernels)
        return good, kernels, errors

    return rebuilt


def test_all_images_or_those_alone_that_have_the_agent(rebuilt: Callable[..., Any]) -> None:
    assert rebuilt(Choice()) == (True, ["6.3"], [])
    assert rebuilt(Choice(every=True)) == (True, list(KERNELS), [])
    assert rebuilt(ALL_INCLUDED) == (True, list(WITH_AGENT), [])
    assert rebuilt(Choice("6.2", included=True)) == (True, [], [])


def test_one_that_fails_costs_no_other(rebuilt: Callable[..., Any], images: dict[str, Path]) -> None:
    failure = [f"{images['6.1']} was not rebuilt, and is as it was: no room"]
    assert rebuilt(ALL_INCLUDED, ("6.1",)) == (False, ["6.3"], failure)
    assert rebuilt(Choice(every=True), ("6.1",)) == (False, ["6.2", "6.3"], failure)
    with pytest.raises(CryptpilotError, match="no room"):
        rebuilt(Choice("6.1"), ("6.1",))


def test_a_package_has_nothing_rebuilt_where_there_is_nothing_to_rebuild(
    rebuilt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rebuilt(ALL_INCLUDED, volumes=False) == (True, [], [])
    monkeypatch.setattr(dracut, "kernels", list)
    assert rebuilt(ALL_INCLUDED) == (True, [], [])
    monkeypatch.setattr(dracut, "all_images", lambda _: [])
    with pytest.raises(CryptpilotError, match="no image of kernel"):
        rebuilt(Choice(every=True))


def test_what_a_killed_rebuild_left_does_not_take_the_room_of_the_next(
    rebuilt: Callable[..., Any], images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade is interrupted, and the image was half made beside the old one on a small /boot."""
    old = images["6.1"]
    left = old.with_name(f"{old.name}.cryptpilot-new")
    left.write_bytes(b"half")
    monkeypatch.setattr(workplace, "room", lambda _: 1 << 40 if not left.exists() else 0)
    with pytest.raises(CryptpilotError, match="was not rebuilt, and is as it was: no room"):  # dracut came to be asked
        rebuilt(Choice("6.1"), ("6.1",))
    assert (old.read_bytes(), left.exists()) == (b"old", False)


def test_what_cannot_be_removed_is_named_and_the_old_image_stays(
    rebuilt: Callable[..., Any], images: dict[str, Path]
) -> None:
    old = images["6.1"]
    left = old.with_name(f"{old.name}.cryptpilot-new")
    left.mkdir()
    with pytest.raises(CryptpilotError, match=rf"{old} was not rebuilt: {left}, .* cannot be removed: Is a directory"):
        rebuilt(Choice("6.1"))
    assert old.read_bytes() == b"old"


def test_the_words_of_a_package() -> None:
    arguments = parse(["initrd", "rebuild", "--all", "--if-included"])
    assert (arguments.all, arguments.if_included) == (True, True)
