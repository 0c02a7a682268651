"""Packages for distributions, and what they carry beside the bundle: man pages, completion, licenses."""
