"""The verbs of the command line: one function per module, which returns its result and prints nothing."""
