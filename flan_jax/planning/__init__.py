"""What a step would take on a machine that is not there: compiled ahead of time, read, and reckoned up."""
