"""Plain text as a task: spans hidden and asked for, or a text continued."""
