"""One run, typed: its configuration, data, network on a mesh, first state, evaluator, record and directory."""
