"""The Llama model: configuration, parameters and the forward pass of training, prefill and decoding.

Axes, in the whole project:
  B batch   T query length   S key length   D model   N query heads   K key/value heads   G = N/K   H head dim
  F feed-forward   V vocabulary   L layers
Decoding runs the same layers with B slots and T samples of a slot, one new token each.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint

from ste_jax.errors import SteError
from ste_jax.models.adapters import Adapters
from ste_jax.models.attention import causal_attention
from ste_jax.models.einsum import einsum_vjp
from ste_jax.models.rope import LinearScaling, RopeScaling, Scaling, apply_rope, rope_tables
from ste_jax.sharding import Rules

Array = jax.Array
# (q [B, T, K, G, H], k [B, T, K, H], v [B, T, K, H], inputs of the layer) -> [B, T, K, G, H]
Attend = Callable[[Array, Array, Array, Any], Array]


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Architecture of a Llama; field names follow Hugging Face's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    rope_theta: float = 10_000.0
    rope_scaling: Scaling | None = None
    rms_norm_eps: float = 1e-5
    tie_embeddings: bool = False

    def __post_init__(self):
        _check_numbers(self)
        if self.num_heads % self.num_kv_heads:
            raise SteError(
                "model_invalid",
                f"model: {self.num_heads} heads are not a multiple of {self.num_kv_heads} kv heads",
            )
        if self.head_dim % 2:
            raise SteError(
                "model_invalid", f"model: head_dim {self.head_dim} is odd; rotary embeddings need an even one"
            )

    @property
    def parameter_count(self) -> int:
        """The number of parameters; tied embeddings count once."""
        return sum(p.size for p in parameter_table(self).values())

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "LlamaConfig":
        """Builds a configuration from the result of `to_json`."""
        scaling = value.get("rope_scaling")
        if scaling:
            kind = LinearScaling if scaling.keys() == {"factor"} else RopeScaling
            scaling = kind(**scaling)
        return cls(**{**value, "rope_scaling": scaling or None})


def _check_numbers(section: Any) -> None:
    """Refuses fields that are no positive numbers of their type, such as those of a damaged file."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            _check_numbers(value)
        elif field.type is bool or value is None:
            valid = isinstance(value, bool) or field.name == "rope_scaling"
        else:
            numbers, most = ((int,), 2**31) if field.type is int else ((int, float), math.inf)
            # Integers are compared as such: float(10**400) would raise.
            valid = isinstance(value, numbers) and not isinstance(value, bool) and 0 < value < most
            valid = valid and value.bit_length() < 64 if isinstance(value, int) else valid
        if not valid:
            raise SteError("model_invalid", f"model: {field.name} is {value!r}, not a valid value")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Description of a parameter.

    Attributes:
      shape: Shape of the array.
      axes: Logical name of each axis; None is replicated.
      std: Standard deviation of the random initialization; None initializes with ones.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    std: float | None

    @property
    def size(self) -> int:
        """The number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


def parameter_table(cfg: LlamaConfig) -> dict[str, Parameter]:
    """Returns all parameters by name. Initialization, sharding, loading and restoring use this table."""
    L, D, F, V = cfg.num_layers, cfg.hidden_size, cfg.intermediate_size, cfg.vocab_size
    K, G, H = cfg.num_kv_heads, cfg.num_heads // cfg.num_kv_heads, cfg.head_dim
    std = 0.02
    table = {
        "embed": Parameter((V, D), ("vocab", "embed"), std),
        "final_norm": Parameter((D,), (None,), None),
        "blocks.attention_norm": Parameter((L, D), (None, None), None),
        "blocks.wq": Parameter((L, D, K, G, H), (None, "embed", "kv_heads", None, None), std),
        "blocks.wk": Parameter((L, D, K, H), (None, "embed", "kv_heads", None), std),
        "blocks.wv": Parameter((L, D, K, H), (None, "embed", "kv_heads", None), std),
        "blocks.wo": Parameter((L, K, G, H, D), (None, "kv_heads", None, None, "embed"), std),
        "blocks.mlp_norm": Parameter((L, D), (None, None), None),
        "blocks.w_gate": Parameter((L, D, F), (None, "embed", "mlp"), std),
        "blocks.w_up": Parameter((L, D, F), (None, "embed", "mlp"), std),
        "blocks.w_down": Parameter((L, F, D), (None, "mlp", "embed"), std),
    }
    if not cfg.tie_embeddings:
        table["unembed"] = Parameter((V, D), ("vocab", "embed"), std)
    return table


def check_divisible(cfg: LlamaConfig, rules: Rules, mesh_shape: Mapping[str, int]) -> None:
    """Checks that a mesh divides every parameter evenly.

    Args:
      cfg: Architecture.
      rules: Sharding rules.
      mesh_shape: Size of each mesh axis by name.

    Raises:
      SteError: An axis of a parameter is not divisible by the size of its mesh axis.
    """
    for name, parameter in parameter_table(cfg).items():
        for size, axis, entry in zip(
            parameter.shape, parameter.axes, rules.spec(*parameter.axes), strict=True
        ):
            parts = 1
            for mesh_axis in (entry,) if isinstance(entry, str) else entry or ():
                parts *= mesh_shape[mesh_axis]
            if size % parts:
                raise SteError(
                    "mesh_invalid",
                    f"mesh: {name} has size {size} along {axis!r}, which is not divisible by the {parts} "
                    f"devices of mesh axis {entry!r}; choose a smaller size for that mesh axis",
                )


class Blocks(nnx.Module):
    """Parameters of all layers, stacked on a leading axis L that `jax.lax.scan` runs over.

    `adapters` is set while adapters are trained and the matrices are frozen.
    """

    def __init__(self, arrays: Mapping[str, Array], adapters: Adapters | None = None):
        self.adapters = adapters
        self.attention_norm = nnx.Param(arrays["blocks.attention_norm"])
        self.wq = nnx.Param(arrays["blocks.wq"])
        self.wk = nnx.Param(arrays["blocks.wk"])
        self.wv = nnx.Param(arrays["blocks.wv"])
        self.wo = nnx.Param(arrays["blocks.wo"])
        self.mlp_norm = nnx.Param(arrays["blocks.mlp_norm"])
        self.w_gate = nnx.Param(arrays["blocks.w_gate"])
        self.w_up = nnx.Param(arrays["blocks.w_up"])
        self.w_down = nnx.Param(arrays["blocks.w_down"])


class Llama(nnx.Module):
    """A Llama model: parameters, their sharding rules, and the dtype of the computation.

    Attributes:
      cfg: Architecture.
      rules: Sharding rules of parameters and activations.
      dtype: Dtype of the computation; parameters may have another.
      embed: Token embeddings [V, D].
      blocks: Parameters of the layers.
      final_norm: Weight of the last norm [D].
      unembed: Output embeddings [V, D], or None if they are tied to `embed`.
    """

    def __init__(
        self,
        cfg: LlamaConfig,
        rules: Rules,
        dtype: str,
        arrays: Mapping[str, Array],
        adapters: Adapters | None = None,
    ):
        self.cfg = cfg
        self.rules = rules
        self.dtype = dtype
        self.embed = nnx.Param(arrays["embed"])
        self.blocks = Blocks(arrays, adapters)
        self.final_norm = nnx.Param(arrays["final_norm"])
        self.unembed = None if cfg.tie_embeddings else nnx.Param(arrays["unembed"])

    def with_adapters(self, adapters: Adapters | None) -> "Llama":
        """Returns the model with other adapters, without copying parameters."""
        arrays = {name: self._stored(name) for name in parameter_table(self.cfg)}
        return Llama(self.cfg, self.rules, self.dtype, arrays, adapters)

    def parameter(self, name: str) -> Array:
        """Returns a parameter with its adapters merged, in the shape and dtype of the stored parameter.

        Args:
          name: Name in `parameter_table`.
        """
        array, adapters = self._stored(name), self.blocks.adapters
        return array if adapters is None else adapters.merge(name.removeprefix("blocks."), array)

    def _stored(self, name: str) -> Array:
        return operator.attrgetter(name)(self)[...]

    def embed_tokens(self, tokens: Array) -> Array:
        """Returns the embeddings [B, T, D] of int32 ids [B, T], in `dtype`."""
        out = self.rules.spec("batch", None, None)
        return self.embed[...].at[tokens].get(out_sharding=out).astype(self.dtype)

    @property
    def unembedding(self) -> Array:
        """The output embeddings [V, D], which map final hidden states to logits."""
        return (self.embed if self.unembed is None else self.unembed)[...]

    def unembed_hidden(self, hidden: Array) -> Array:
        """Returns float32 logits [B, T, V] of final hidden states [B, T, D]."""
        return logits_of(hidden, self.unembedding, self.rules, self.dtype)

    def normalize(self, x: Array) -> Array:
        """Returns the final norm of hidden states, [B, T, D] in their dtype."""
        return rms_norm(x, self.final_norm[...], self.cfg.rms_norm_eps)

    def run_layers(
        self,
        x: Array,
        positions: Array,
        attend: Attend,
        layer_inputs: Any = None,
        *,
        remat: Callable | None = None,
    ) -> tuple[Array, Any]:
        """Runs all layers in one loop.

        Args:
          x: Embeddings [B, T, D].
          positions: int32 [B, T].
          attend: Attention; gets rotated queries and keys, values, and the slice of `layer_inputs`.
          layer_inputs: Pytree whose arrays have a leading axis L.
          remat: Wraps the layer function for rematerialization in the backward pass.

        Returns:
          Hidden states before the final norm [B, T, D], and the new keys and values, each [L, B, T, K, H].
        """
        tables = rope_tables(positions, self.cfg.head_dim, self.cfg.rope_theta, self.cfg.rope_scaling)

        def layer(x: Array, slice_: tuple[Blocks, Any]) -> tuple[Array, tuple[Array, Array]]:
            block, inputs = slice_
            return self._layer(block, x, tables, lambda q, k, v: attend(q, k, v, inputs))

        return jax.lax.scan(remat(layer) if remat else layer, x, (self.blocks, layer_inputs))

    def _layer(self, block: Blocks, x: Array, tables: tuple[Array, Array], attend: Callable):
        """Returns the output [B, T, D] of a layer, and its keys and values [B, T, K, H]."""
        eps, residual = self.cfg.rms_norm_eps, self.rules.spec("batch", None, None)

        def multiply(name: str, spec: str, x: Array, out_sharding: Any = None) -> Array:
            w, adapters = getattr(block, name)[...].astype(self.dtype), block.adapters
            with jax.named_scope(name):
                if adapters is None:
                    return einsum_vjp(spec, x, w, out_sharding)
                # Without this constraint, the TPU compiler keeps copies of frozen matrices in another layout.
                w = with_layout_constraint(w, Layout(tuple(range(w.ndim))))
                shardings = {"low_rank_sharding": residual, "out_sharding": out_sharding}
                return einsum_vjp(spec, x, w, out_sharding) + adapters.lora_delta(name, spec, x, **shardings)

        with jax.named_scope("attention"):
            h = rms_norm(x, block.attention_norm[...], eps)
            q = multiply("wq", "BTD,DKGH->BTKGH", h)
            k = multiply("wk", "BTD,DKH->BTKH", h)
            v = multiply("wv", "BTD,DKH->BTKH", h)
            q, k = apply_rope(q, tables), apply_rope(k, tables)
            x = x + multiply("wo", "BTKGH,KGHD->BTD", attend(q, k, v), residual)
        with jax.named_scope("mlp"):
            h = rms_norm(x, block.mlp_norm[...], eps)
            gate = multiply("w_gate", "BTD,DF->BTF", h)
            up = multiply("w_up", "BTD,DF->BTF", h)
            x = x + multiply("w_down", "BTF,FD->BTD", jax.nn.silu(gate) * up, residual)
        return x, (k, v)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Returns the root-mean-square norm over the last axis.

    Args:
      x: Array [..., D]; the result has its shape and dtype, computed in float32.
      weight: [D].
      eps: Added to the mean square.
    """
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    weight = weight.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return (wide * scale * weight).astype(x.dtype)


def logits_of(hidden: Array, unembedding: Array, rules: Rules, dtype: str) -> Array:
    """Returns logits, float32 [B, T, V].

    Args:
      hidden: Final hidden states [B, T, D].
      unembedding: Output embeddings [V, D].
      rules: Sharding rules.
      dtype: Dtype of the operands of the product, which is summed in float32.
    """
    with jax.named_scope("unembed"):
        return jnp.einsum(
            "BTD,VD->BTV",
            hidden,
            unembedding.astype(dtype),
            preferred_element_type=jnp.float32,
            out_sharding=rules.spec("batch", None, "vocab"),
        )


def hidden_states(
    model: Llama,
    tokens: Array,
    positions: Array,
    segments: Array,
    *,
    attention: Callable[..., Array] = causal_attention,
    remat: Callable | None = None,
) -> Array:
    """Runs the full forward pass; returns hidden states after the final norm, [B, T, D] in the model's dtype.

    Args:
      model: The model.
      tokens: int32 [B, T].
      positions: int32 [B, T].
      segments: int32 [B, T], see `causal_attention`.
      attention: Attention function with the signature of `causal_attention`.
      remat: See `Llama.run_layers`.
    """
    x, _ = model.run_layers(
        model.embed_tokens(tokens),
        positions,
        lambda q, k, v, _: attention(q, k, v, segments),
        remat=remat,
    )
    return model.normalize(x)


def initialize(cfg: LlamaConfig, rules: Rules, key: Array, *, param_dtype: str, dtype: str) -> Llama:
    """Returns a randomly initialized model on the current mesh.

    Args:
      cfg: Architecture.
      rules: Sharding rules.
      key: Typed PRNG key [].
      param_dtype: Dtype of the parameters.
      dtype: Dtype of the computation.
    """
    table = parameter_table(cfg)
    keys = dict(zip(table, jax.random.split(key, len(table)), strict=True))
    arrays = {name: random_parameter(keys[name], p, rules, param_dtype) for name, p in table.items()}
    return Llama(cfg, rules, dtype, arrays)


def random_parameter(key: Array, parameter: Parameter, rules: Rules, dtype: str) -> Array:
    """Returns a randomly initialized parameter of the given shape and dtype, sharded on the current mesh."""
    out, shape = rules.spec(*parameter.axes), parameter.shape
    if parameter.std is None:
        return jnp.ones(shape, dtype, out_sharding=out)
    return jax.random.normal(key, shape, jnp.dtype(dtype), out_sharding=out) * parameter.std
