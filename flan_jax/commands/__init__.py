"""Composition: one verb a module, one keyword-only function a verb. The only place where layers meet."""
