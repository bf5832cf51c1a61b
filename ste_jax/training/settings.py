"""Settings of training, validated on construction."""

import dataclasses
import functools
import math
from typing import Literal, get_args

from ste_jax.config_field import INHERITED, config_field
from ste_jax.errors import SteError
from ste_jax.models.splash import LANES

Dtype = Literal["float32", "bfloat16"]
Objective = Literal["sft", "dpo", "pairwise"]
Attention = Literal["auto", "xla", "splash"]
Remat = Literal["none", "dots", "full"]
Optimizer = Literal["adamw", "lion", "sgd"]
Metric = Literal["accuracy", "accuracy_pooled", "worst_kind"]
Schedule = Literal["cosine", "linear", "constant"]

_fixed = functools.partial(config_field, affects=INHERITED)
# May differ when a run is resumed: changes no batch and no schedule, at most the order of summation.
_free = functools.partial(config_field, affects=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of one training; the defaults are those of the paper where it states them.

    Attributes:
      objective: "sft": fine-tuning on correct judgments. "dpo": preference optimization of correct judgments
        against wrong ones. "pairwise": cross-entropy of the decision over both orders, for judges without
        reasoning.
      beta: DPO: strength of the constraint to stay close to the initial model.
      nll_scale: DPO: weight of the negative log-likelihood of the correct judgments.
      lean_penalty: Pairwise: weight of the squared lean, the log-odds of the letter A that remain when both
        orders are averaged. 0: the lean is free, and single verdicts may all be the same letter.
      noise_exponent: Pairwise: exponent of the generalized cross-entropy for kinds of pairs with uncertain
        labels, above 0 and at most 1. 0: cross-entropy for all.
      learning_rate: Peak of the schedule, reached by a linear warm-up.
      schedule: Decay after the peak: "cosine" or "linear" down to `learning_rate *
        final_learning_rate_ratio`, which the step after the last one would have, or "constant".
      final_learning_rate_ratio: Final learning rate as a share of the peak.
      warmup_steps: Number of steps of the linear warm-up.
      epochs: Maximum number of passes over the examples; 0.5 is half a pass.
      batch_rows: Packed rows per optimizer step, over all devices.
      micro_rows: Packed rows per forward and backward pass; the gradients of a step's micro-batches are
        accumulated.
      row_length: Length of a packed row in tokens; longer examples are dropped.
      optimizer: Optimizer of optax. "sgd" has momentum `b1` and no weight decay.
      b1: Decay rate of the first moments.
      b2: Decay rate of the second moments.
      weight_decay: Weight decay.
      clip_norm: Maximum global norm of the gradients.
      lora_rank: Rank of LoRA adapters of the matrices of all layers; the model is frozen and stored in
        `dtype`. 0: trains all parameters.
      lora_alpha: Scale of the adapters, as `lora_alpha / lora_rank`.
      param_dtype: Dtype of the trained parameters and of the second moments (adamw). In bfloat16, updates at
        small learning rates are lost.
      dtype: Dtype of the computation. Norms, softmax and losses are always float32.
      moment_dtype: Dtype of the first moments.
      attention: "xla" on any device, "splash", the Pallas kernel for TPU, or "auto": "splash" on TPU if the
        row length allows it, else "xla". All are equal up to rounding.
      remat: Activations that the backward pass recomputes: "none", "dots" (all but the products with
        weights and the outputs of "xla" attention) or "full" (whole layers). Attention scores are always
        recomputed.
      loss_chunk: Number of targets per row whose logits are in memory at a time.
      evaluate_every: Steps between validations, in addition to those at the end of each epoch. 0: none.
      choose_by: Validation metric that chooses the checkpoint: "accuracy" of the single verdicts, or
        "accuracy_pooled" of the decisions over both orders, or "worst_kind", the lowest accuracy_pooled of a
        kind of pairs.
      patience: Number of successive validations without improvement after which training stops. 0: never.
      checkpoint_every: Steps between checkpoints.
      keep_checkpoints: Number of latest checkpoints to keep.
    """

    objective: Objective = _fixed("sft")
    beta: float = _fixed(0.1)
    nll_scale: float = _fixed(1.5)
    lean_penalty: float = _fixed(0.02)
    noise_exponent: float = _fixed(0.7)
    learning_rate: float = _fixed(1e-6)
    schedule: Schedule = _fixed("cosine")
    final_learning_rate_ratio: float = _fixed(0.2)
    warmup_steps: int = _fixed(100)
    epochs: float = _fixed(2.0)
    batch_rows: int = _fixed()
    micro_rows: int = _free()
    row_length: int = _fixed(4096)
    optimizer: Optimizer = _fixed("adamw")
    b1: float = _fixed(0.9)
    b2: float = _fixed(0.95)
    weight_decay: float = _fixed(0.1)
    clip_norm: float = _fixed(1.0)
    lora_rank: int = _fixed(0)
    lora_alpha: float = _fixed(16.0)
    param_dtype: Dtype = _fixed("float32")
    dtype: Dtype = _fixed("float32")
    moment_dtype: Dtype = _fixed("float32")
    attention: Attention = _free("xla")
    remat: Remat = _free("none")
    loss_chunk: int = _fixed(256)
    evaluate_every: int = _free(0)
    choose_by: Metric = _fixed("accuracy")
    patience: int = _fixed(0)
    checkpoint_every: int = _free(100)
    keep_checkpoints: int = _free(1)

    def __post_init__(self):
        for name in ("learning_rate", "epochs", "clip_norm", "beta", "lora_alpha"):
            self._check(name, 0.0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("batch_rows", "micro_rows", "loss_chunk", "checkpoint_every", "keep_checkpoints"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("warmup_steps", "evaluate_every", "patience", "lora_rank"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("row_length", self.row_length >= 2, "2 or more")
        self._check("final_learning_rate_ratio", 0.0 <= self.final_learning_rate_ratio <= 1.0, "from 0 to 1")
        for name in ("weight_decay", "nll_scale", "lean_penalty"):
            self._check(name, 0.0 <= getattr(self, name) < math.inf, "0 or more")
        self._check("noise_exponent", 0.0 <= self.noise_exponent <= 1.0, "from 0 to 1")
        for name in ("b1", "b2"):
            self._check(name, 0.0 <= getattr(self, name) < 1.0, "at least 0 and below 1")
        for name, choice in (
            *((name, Dtype) for name in ("param_dtype", "dtype", "moment_dtype")),
            ("objective", Objective),
            ("attention", Attention),
            ("remat", Remat),
            ("optimizer", Optimizer),
            ("schedule", Schedule),
        ):
            self._check(name, getattr(self, name) in get_args(choice), f"one of {get_args(choice)}")
        if self.batch_rows % self.micro_rows:
            raise SteError(
                "config_invalid",
                f"train: batch_rows {self.batch_rows} is not a multiple of micro_rows {self.micro_rows}; "
                "choose a micro_rows that divides it",
            )
        if self.optimizer == "adamw" and self.param_dtype == "bfloat16" and self.b2 > 0.99:
            raise SteError(
                "config_invalid",
                f"train: param_dtype 'bfloat16' requires a b2 of at most 0.99, not {self.b2}: second moments "
                "have that dtype too, which rounds off changes of less than half a percent; lower b2, or set "
                "param_dtype to 'float32'",
            )
        if self.attention == "splash" and self.row_length % LANES:
            raise SteError(
                "config_invalid",
                f"train: attention 'splash' requires a row_length that is a multiple of {LANES}, not "
                f"{self.row_length}; change it, or set attention to 'auto'",
            )

    def _check(self, name: str, valid: bool, allowed: str) -> None:
        if not valid:
            raise SteError("config_invalid", f"train: {name} must be {allowed}, not {getattr(self, name)!r}")

    @property
    def model_dtype(self) -> Dtype:
        """Dtype of the parameters in memory: `param_dtype`, or `dtype` if they are frozen (with LoRA)."""
        return self.dtype if self.lora_rank else self.param_dtype

    def steps(self, epoch: int) -> int:
        """Returns the number of steps of a run with `epoch` steps per pass, at least one."""
        return max(1, int(round(self.epochs * epoch, 6)))

    def evaluates_after(self, step: int, epoch: int) -> bool:
        """Returns True if a run with `epoch` steps per pass evaluates after this step."""
        at_epoch = step % epoch == 0 or step == self.steps(epoch)
        return at_epoch or (self.evaluate_every > 0 and step % self.evaluate_every == 0)

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches per step."""
        return self.batch_rows // self.micro_rows
