"""Small models, examples and settings that the tests of training share."""

import jax
import numpy as np

from ste_jax.models.llama import Llama, LlamaConfig, initialize
from ste_jax.records import TrainingExample
from ste_jax.sft.settings import TrainSettings
from ste_jax.sharding import TRAIN, make_mesh

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=64,
    tie_embeddings=True,
)


def one_device() -> jax.sharding.Mesh:
    return make_mesh((1, 1, 1), jax.devices()[:1])


def tiny_model(mesh: jax.sharding.Mesh, dtype: str = "float32") -> Llama:
    with jax.set_mesh(mesh):
        make = jax.jit(lambda key: initialize(TINY, TRAIN, key, param_dtype="float32", dtype=dtype))
        return make(jax.random.key(0))


def examples(count: int, seed: int = 0, longest: int = 30) -> list[TrainingExample]:
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        prompt, target = random.integers(1, longest // 2, 2)
        ids = random.integers(0, TINY.vocab_size, prompt + target).tolist()
        made.append(
            TrainingExample(
                id=f"e{i}", pair_id=f"p{i}", order="as_given", prompt=ids[:prompt], target=ids[prompt:]
            )
        )
    return made


def settings(**changes) -> TrainSettings:
    values = {
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "batch_rows": 8,
        "micro_rows": 8,
        "row_length": 32,
        "loss_chunk": 8,
    }
    return TrainSettings(**{**values, **changes})
