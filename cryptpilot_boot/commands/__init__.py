"""One file a verb: says in domain words what the verb does. Nothing here prints or exits.

Each is a function of the configuration, of what was asked for and of `say`, which takes one line for the person; it
returns whether all went well.
"""
