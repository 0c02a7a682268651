"""Where passphrases come from: a file a provider, and a row of `providers.table`.

See docs/dev/new-source.md for how to add one. What a file here imports at its top is loaded by each start of the
program: what asks for a secret is imported when it is needed, by `prepare`.
"""
