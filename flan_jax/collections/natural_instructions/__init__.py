"""Natural Instructions in both versions: the files, which of them are taken, and the tasks that they become."""
