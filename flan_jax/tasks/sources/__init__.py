"""Sources of rows: files, TFDS and Python. Rows are plain dictionaries in a fixed order."""
