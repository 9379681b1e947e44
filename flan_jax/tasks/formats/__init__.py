"""Files of published shapes: instructions, conversations, preferences."""
