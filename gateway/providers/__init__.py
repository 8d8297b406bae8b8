"""Provider adapters, one file a wire: the module's name is the `kind` in the configuration, `ls` is the list.

Files that begin with an underscore are parts of the adapter they are named after.
"""
