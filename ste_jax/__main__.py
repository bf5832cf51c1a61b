"""`python -m ste_jax`: the command `ste`."""

from ste_jax.cli import command

command()
