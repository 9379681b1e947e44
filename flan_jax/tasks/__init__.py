"""Datasets: SeqIO tasks and mixtures, and their export to disk. The only importer of TensorFlow."""
