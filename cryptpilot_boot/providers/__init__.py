"""Key providers: one file each, and one row in `providers.table`. docs/dev/new-source.md says how to add one.

Imports at the top of these files slow down each start of the program. So `prepare` imports what asks for a secret, when
it is needed.
"""
