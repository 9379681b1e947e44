"""Rules for leaving rows out, counted by reason."""
