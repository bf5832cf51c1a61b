"""Small models, examples and settings that the tests of training share."""

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.models.llama import Llama, LlamaConfig, Parameter, parameter_table
from ste_jax.records import TrainingExample
from ste_jax.sharding import TRAIN, make_mesh, put_on_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.settings import TrainSettings
from ste_jax.training.step import init_state, make_optimizer, put_batch, train_step

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


def tiny_model(
    mesh: jax.sharding.Mesh, param_dtype: str = "float32", dtype: str = "float32", cfg: LlamaConfig = TINY
) -> Llama:
    random = np.random.default_rng(0)

    def place(parameter: Parameter) -> jax.Array:
        values = np.ones(parameter.shape) if parameter.std is None else random.normal(0, 0.1, parameter.shape)
        return put_on_mesh(values.astype(jnp.dtype(param_dtype)), mesh, TRAIN.spec(*parameter.axes))

    arrays = {name: place(parameter) for name, parameter in parameter_table(cfg).items()}
    return Llama(cfg, TRAIN, dtype, arrays)


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


def update_once(
    batches: Batches, chosen: TrainSettings, shape: tuple[int, int, int]
) -> tuple[float, list[np.ndarray]]:
    """Returns the loss and the first moments of one update of the tiny model, all examples in one batch."""
    mesh = make_mesh(shape, jax.devices()[: np.prod(shape)])
    assert batches.steps_per_epoch == 1
    assert len({len(row) for row in batches.rows(0)}) > 1, "rows must differ in pairs to tell"
    with jax.set_mesh(mesh):
        state = init_state(tiny_model(mesh), make_optimizer(chosen, 10))
        batch = put_batch(batches.batch(0), TRAIN, mesh)
        state, metrics = train_step(state, batch, settings=chosen, total_steps=10)
    moments = jax.tree.leaves(state.opt_state[1][0].mu)
    return float(metrics["loss"]), [np.asarray(x) for x in moments]
