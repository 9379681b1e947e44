"""The training loop: state, step, metrics, writers. Independent of the network, file formats and configuration."""
