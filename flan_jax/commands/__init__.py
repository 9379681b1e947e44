"""The verbs of the command line: one function per module, which returns its result and prints nothing.

A result shows itself to rich (`__rich__`). It may have `data`, which `--json` prints, and an `exit_status` other than
0.
"""
