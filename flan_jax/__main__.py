"""`python -m flan_jax` is `flan-jax`."""

from flan_jax.cli import main

if __name__ == "__main__":
    main()
