"""One run, typed: its configuration, data, network on a mesh, initial state, evaluator, provenance and directory."""
