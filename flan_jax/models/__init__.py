"""Networks in Flax Linen: shared layers here, one folder per family of networks, and `acceleration` for speed."""
