"""Kinds of stock systems that several files of tests convert."""

from __future__ import annotations

from tests.boot.stock import Stock

IN_LVM = Stock("ext4", "ext4", mbr=True, efi=False, lvm=True, swap=True)
