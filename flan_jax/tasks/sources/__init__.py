"""Where rows come from: files, TFDS and Python; plain dictionaries in a fixed order."""
