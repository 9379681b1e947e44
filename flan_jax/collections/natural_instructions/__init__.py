"""Natural Instructions in both versions: reading and selecting the files, and their tasks."""
