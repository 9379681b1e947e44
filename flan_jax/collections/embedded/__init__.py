"""The embedded suite: small tasks whose rows are made here."""
