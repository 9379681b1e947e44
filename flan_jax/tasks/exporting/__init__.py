"""Exporting tasks: splits planned, encoded, and written as shards with manifests."""
