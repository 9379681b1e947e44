"""The published collections as tables and templates, each a folder."""
