"""The content of an initrd image: its sources, whether these have changed since, and what the image lacks."""
