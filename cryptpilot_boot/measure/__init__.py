"""What a verifier has to expect of a disk image that boots by a unified kernel image.

`look` reads the image; `unified`, `stub` and `registers` compute, and touch nothing.
"""
