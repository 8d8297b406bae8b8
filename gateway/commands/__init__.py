"""What `atlas` does beside serving: one file a command, each with `add` for its place in the parser.

A command is a function of the parsed arguments and a `Terminal`, and returns the exit code: 0 done, 1 refused or
failed, 2 the command or the configuration is wrong, 3 no gateway was reached. Nothing heavy is imported before the
command that needs it runs.
"""
