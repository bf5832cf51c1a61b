"""Packages of the distribution; its metadata and the settings of the tools are in pyproject.toml.

The shipped configurations live in configs/ of the repository and are installed as `ste_jax/configs`, which a
search for packages cannot find.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ste_jax", "ste_jax.*"]), "ste_jax.configs"],
    package_dir={"ste_jax.configs": "configs"},
)
