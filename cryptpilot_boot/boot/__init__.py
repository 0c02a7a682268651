"""The stages of a boot: what to open, how to wait for it, and what the console says."""
