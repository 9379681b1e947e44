"""Flan 2022: five submixtures in their variants; chain of thought and dialogue are collections of their own, too."""
