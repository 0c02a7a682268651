"""The stages of a boot: what to open, waiting for it, and the log of what happened."""
