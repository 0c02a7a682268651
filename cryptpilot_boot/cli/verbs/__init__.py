"""A file for each command: what `--help` says of it, its arguments, and what it does with them. See `cli.table`."""
