"""The embedded suite: small tasks with synthetic rows."""
