"""Flan 2022: five submixtures in their variants, with chain of thought and dialogue, which are families of their own."""
