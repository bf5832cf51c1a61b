"""The settings of supervised fine-tuning, checked when they are made."""

import dataclasses
import math
from typing import Literal

Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What one fine-tuning run does; the defaults are the paper's where it states them.

    Attributes:
      learning_rate: peak of the schedule: linear warm-up, then a cosine down to
        `learning_rate * final_learning_rate_ratio` at the last step.
      epochs: the run makes at most this many passes over the examples (0.5: half of them).
      batch_rows: packed rows of one optimizer step, over all devices.
      micro_rows: rows that go through the model at once; gradients of a step's micro-batches are accumulated.
      row_length: tokens of a packed row; longer examples are left out.
      param_dtype: of the parameters and the second moments; small learning rates vanish in bfloat16.
      dtype: of the computation; norms, softmax and losses are float32 in any case.
      moment_dtype: of the first moments.
      remat: what the backward pass recomputes: nothing, all but the matrix products ("dots"), or each layer.
      loss_chunk: targets of a row whose logits exist at once.
      evaluate_every: steps between evaluations, 0: only at the end.
      checkpoint_every: steps between checkpoints.
      keep_checkpoints: how many of the latest checkpoints are kept.
    """

    learning_rate: float = 1e-6
    final_learning_rate_ratio: float = 0.2
    warmup_steps: int = 100
    epochs: float = 2.0
    batch_rows: int
    micro_rows: int
    row_length: int = 4096
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    param_dtype: Dtype = "float32"
    dtype: Dtype = "float32"
    moment_dtype: Dtype = "float32"
    remat: Remat = "none"
    loss_chunk: int = 256
    evaluate_every: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 1

    def __post_init__(self):
        for name in ("learning_rate", "epochs", "clip_norm"):
            self._check(name, 0.0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("batch_rows", "micro_rows", "loss_chunk", "checkpoint_every", "keep_checkpoints"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("warmup_steps", "evaluate_every"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("row_length", self.row_length >= 2, "2 or more")
        self._check("final_learning_rate_ratio", 0.0 <= self.final_learning_rate_ratio <= 1.0, "from 0 to 1")
        self._check("weight_decay", 0.0 <= self.weight_decay < math.inf, "0 or more")
        for name in ("b1", "b2"):
            self._check(name, 0.0 <= getattr(self, name) < 1.0, "at least 0 and below 1")
        for name in ("param_dtype", "dtype", "moment_dtype"):
            self._check(name, getattr(self, name) in ("float32", "bfloat16"), "'float32' or 'bfloat16'")
        self._check("remat", self.remat in ("none", "dots", "full"), "'none', 'dots' or 'full'")
        if self.batch_rows % self.micro_rows:
            raise ValueError(
                f"train: batch_rows {self.batch_rows} is not a multiple of micro_rows {self.micro_rows}; "
                "choose a micro_rows that divides it"
            )

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise ValueError(f"train: {name} must be {wanted}, not {getattr(self, name)!r}")

    @property
    def micro_batches(self) -> int:
        """How many micro-batches make a step."""
        return self.batch_rows // self.micro_rows
