"""One optimizer step: the training state, the optimizer, and the jitted step function."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Int32

from ste_jax.errors import SteError
from ste_jax.models.attention import causal_attention
from ste_jax.models.einsum import SAVED
from ste_jax.models.llama import Llama, LlamaConfig, hidden_states, initialize
from ste_jax.models.splash import LANES, splash_attention
from ste_jax.sharding import Rules, put_on_mesh
from ste_jax.training.lora import add_lora, replace_trainable, trainable
from ste_jax.training.loss import target_losses, total_loss
from ste_jax.training.pairwise import pairwise_loss
from ste_jax.training.preference import PreferenceBatches, is_chosen, preference_loss, sequence_log_probs
from ste_jax.training.settings import TrainSettings

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["step", "model", "opt_state"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: Number of updates made.
      model: `Llama`; in checkpoints only its trainable part (see `training.lora`).
      opt_state: State of the optimizer, with the shardings of the trainable parameters.
    """

    step: Int32[Array, ""]
    model: Any
    opt_state: Any


def learning_rates(settings: TrainSettings, total_steps: int) -> optax.Schedule:
    """Returns the learning rate by update 0, 1, ...: a linear warm-up from 0, then the schedule."""
    peak, warmup = settings.learning_rate, min(settings.warmup_steps, total_steps - 1)
    steps, ratio = total_steps - warmup, settings.final_learning_rate_ratio
    after = {
        "cosine": optax.cosine_decay_schedule(peak, steps, ratio),
        "linear": optax.linear_schedule(peak, peak * ratio, steps),
        "constant": optax.constant_schedule(peak),
    }[settings.schedule]
    schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])
    return lambda step: schedule(jnp.asarray(step, jnp.float32))


def make_optimizer(settings: TrainSettings, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer after clipping by the global norm; norm weights do not decay, all matrices do."""
    rates, s = learning_rates(settings, total_steps), settings
    decay = {"weight_decay": s.weight_decay, "mask": _is_matrix}
    if s.optimizer == "adamw":
        optimizer = optax.adamw(rates, b1=s.b1, b2=s.b2, mu_dtype=s.moment_dtype, **decay)
    elif s.optimizer == "lion":
        optimizer = optax.lion(rates, b1=s.b1, b2=s.b2, mu_dtype=s.moment_dtype, **decay)
    else:
        optimizer = optax.sgd(rates, momentum=s.b1, accumulator_dtype=s.moment_dtype)
    return optax.chain(optax.clip_by_global_norm(s.clip_norm), optimizer)


def _is_matrix(tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in jax.tree_util.keystr(path), tree)


def init_state(model: Llama, tx: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first update; the optimizer's arrays are sharded like the model's."""
    step = jnp.zeros((), jnp.int32, out_sharding=jax.P())
    return TrainState(step=step, model=model, opt_state=jax.jit(tx.init)(trainable(model)))


def check_rows(settings: TrainSettings, rules: Rules, mesh_shape: Mapping[str, int]) -> None:
    """Checks that the rows of a micro-batch divide evenly over the devices.

    Raises:
      SteError: "config_invalid", naming the number of rows and the number of devices.
    """
    axes = (rules.batch,) if isinstance(rules.batch, str) else rules.batch or ()
    parts = math.prod(mesh_shape[axis] for axis in axes)
    if settings.micro_rows % parts:
        raise SteError(
            "config_invalid",
            f"train: micro_rows {settings.micro_rows} do not divide evenly over the {parts} devices of the "
            f"mesh axes {axes}; choose a multiple of {parts}",
        )


def choose_attention(settings: TrainSettings, mesh: jax.sharding.Mesh) -> TrainSettings:
    """Returns the settings with the attention kernel for the devices of the mesh in place of "auto".

    Raises:
      SteError: "config_invalid", naming the setting and the devices, if they cannot run the kernel.
    """
    platform = mesh.devices.flat[0].platform
    if settings.attention == "auto":
        has_kernel = platform == "tpu" and settings.row_length % LANES == 0
        return dataclasses.replace(settings, attention="splash" if has_kernel else "xla")
    if settings.attention == "splash" and platform != "tpu":
        raise SteError(
            "config_invalid",
            f"train: attention 'splash' runs on TPU only, and these devices are of platform {platform!r}; "
            "set train.attention to 'auto' or 'xla'",
        )
    return settings


def put_batch(batch: Mapping[str, np.ndarray], rules: Rules, mesh: jax.sharding.Mesh) -> dict[str, Array]:
    """Puts a batch, arrays [rows, ...], on the devices of `mesh`; every process has the whole batch."""
    return {name: put_on_mesh(array, mesh, rules.spec("batch", None)) for name, array in batch.items()}


@partial(jax.jit, donate_argnums=0, static_argnames=("settings", "total_steps"))
def train_step(
    state: TrainState, batch: Mapping[str, Array], *, settings: TrainSettings, total_steps: int
) -> tuple[TrainState, dict[str, Array]]:
    """Makes one update from a batch of `settings.batch_rows` rows.

    The loss is a mean over all target tokens of the batch ("pairwise": over pairs; "dpo": over pairs, and
    over tokens of the chosen sequences), so that neither micro-batches nor the mesh change it.

    Args:
      state: State before the update; its buffers are donated.
      batch: Arrays of the batches of the objective: `Batches`, `PreferenceBatches` for "dpo", or
        `PairwiseBatches` for "pairwise"; rows sharded over the mesh.
      settings: Settings of the run.
      total_steps: Number of updates of the run.

    Returns:
      The next state and float32 scalars: loss, grad_norm (before clipping), param_norm (of the trainable
      part after the update: not finite if any parameter is not), learning_rate, target_tokens.
    """
    loss_at = _loss_of(settings, batch)
    loss_of = jax.value_and_grad(lambda part, micro: loss_at(replace_trainable(state.model, part), micro))
    # Optax accepts any pytree, although its type hints are narrower.
    tx, params = make_optimizer(settings, total_steps), cast(Any, trainable(state.model))
    if settings.micro_batches == 1:
        loss, grads = loss_of(params, batch)
    else:
        loss, grads = _accumulate(loss_of, params, batch, settings, state.model.rules)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer count
        updates, opt_state = tx.update(grads, state.opt_state, params)
        updated = cast(Any, optax.apply_updates(params, updates))
    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(updated),
        "learning_rate": jnp.asarray(learning_rates(settings, total_steps)(state.step), jnp.float32),
        "target_tokens": jnp.sum(batch["target_weights"]),
    }
    model = replace_trainable(state.model, updated)
    return TrainState(step=state.step + 1, model=model, opt_state=opt_state), metrics


def _loss_of(settings: TrainSettings, batch: Mapping[str, Array]) -> Callable[..., Array]:
    """Returns the function (model, micro-batch) -> share of the loss of `batch`, a float32 scalar."""
    if settings.objective == "sft":
        targets = jnp.maximum(jnp.sum(batch["target_weights"]), 1.0)
        chunk = settings.loss_chunk
        return lambda model, micro: (
            total_loss(model, _hidden(model, micro, settings), micro, chunk=chunk) / targets
        )
    pairs = jnp.maximum(jnp.sum(batch["pair_weights"]), 1.0)
    if settings.objective == "pairwise":
        return lambda model, micro: pairwise_loss(_losses(model, micro, settings), micro, settings, pairs)
    chosen = jnp.maximum(jnp.sum(is_chosen(batch)), 1.0)
    return lambda model, micro: preference_loss(
        _losses(model, micro, settings), micro, settings, pairs=pairs, chosen_targets=chosen
    )


def _losses(model: Llama, batch: Mapping[str, Array], settings: TrainSettings) -> Array:
    return target_losses(model, _hidden(model, batch, settings), batch, chunk=settings.loss_chunk)


def _hidden(model: Llama, batch: Mapping[str, Array], settings: TrainSettings) -> Array:
    return hidden_states(
        _narrow_layers(model),
        batch["tokens"],
        batch["positions"],
        batch["segments"],
        attention=_attention(model, settings),
        remat=_remat(settings),
    )


@partial(jax.jit, static_argnames="settings")
def _log_probs(model: Llama, batch: Mapping[str, Array], *, settings: TrainSettings) -> Array:
    return sequence_log_probs(_losses(model, batch, settings), batch)


def reference_log_probs(
    model: Llama, batches: PreferenceBatches, settings: TrainSettings, mesh: jax.sharding.Mesh
) -> dict[str, list[float]]:
    """Returns the log-probabilities of the chosen and of the rejected sequence of each example, by id."""
    settings = choose_attention(settings, mesh)
    found = {}
    with jax.set_mesh(mesh):
        for step in range(batches.steps_per_epoch):
            arrays, rows = batches.batch(step), []
            for first in range(0, settings.batch_rows, settings.micro_rows):
                micro = {name: array[first : first + settings.micro_rows] for name, array in arrays.items()}
                values = _log_probs(model, put_batch(micro, model.rules, mesh), settings=settings)
                rows += multihost_utils.process_allgather(values, tiled=True).tolist()
            for row, values in zip(batches.rows(step), rows, strict=False):
                found |= {e.id: values[2 * i : 2 * i + 2] for i, e in enumerate(row)}
    return found


def _narrow_layers(model: Llama) -> Llama:
    """Casts the matrices of the layers before use, so that devices gather them in the computation dtype.

    Their gradients have this dtype anyway. The gradients of the embedding tables are sums of many products
    and keep the parameter dtype.
    """
    narrow = copy.copy(model)
    narrow.blocks = jax.tree.map(
        lambda p, is_matrix: p.astype(model.dtype) if is_matrix else p, model.blocks, _is_matrix(model.blocks)
    )
    return narrow


def _attention(model: Llama, settings: TrainSettings) -> Callable[..., Array]:
    if settings.attention == "splash":
        return partial(splash_attention, rules=model.rules)
    return causal_attention


def _remat(settings: TrainSettings) -> Callable | None:
    if settings.remat == "none":
        return None
    policy = jax.checkpoint_policies.save_only_these_names(SAVED) if settings.remat == "dots" else None
    # The scan over layers already prevents common subexpressions with the forward pass.
    return partial(jax.checkpoint, policy=policy, prevent_cse=False)


def _accumulate(
    loss_of: Callable[[Any, Mapping[str, Array]], tuple[Array, Any]],
    params: Any,
    batch: Mapping[str, Array],
    settings: TrainSettings,
    rules: Rules,
) -> tuple[Array, Any]:
    """Sums losses and gradients over micro-batches in float32; gradients return in the parameters' dtype."""

    def split(x: Array) -> Array:
        # Micro-batch i takes the rows i, i + n, ...: no row leaves its device, whatever the mesh.
        shape = (settings.micro_rows, settings.micro_batches, x.shape[1])
        return jnp.reshape(x, shape, out_sharding=rules.spec("batch", None, None)).swapaxes(0, 1)

    def add(total: tuple[Array, Any], micro: Mapping[str, Array]) -> tuple[tuple[Array, Any], None]:
        values = loss_of(params, micro)
        return jax.tree.map(lambda t, x: t + x.astype(jnp.float32), total, values), None

    zeros = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
    micros = {name: split(array) for name, array in batch.items()}
    (loss, grads), _ = jax.lax.scan(add, (jnp.float32(0.0), zeros), micros)
    return loss, jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)


def abstract_state(cfg: LlamaConfig, rules: Rules, settings: TrainSettings, total_steps: int) -> TrainState:
    """Returns the shapes, dtypes and shardings of a run's state on the current mesh, creating no array."""

    def make() -> TrainState:
        key = jax.random.key(0)
        model = initialize(cfg, rules, key, param_dtype=settings.model_dtype, dtype=settings.dtype)
        return init_state(add_lora(model, settings, key), make_optimizer(settings, total_steps))

    return jax.eval_shape(make)
