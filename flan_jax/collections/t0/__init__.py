"""T0: promptsource's templates over the datasets of its table."""
