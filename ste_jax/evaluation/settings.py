"""How a judge is evaluated; what is not said is chosen by the size of the model, and written down."""

import dataclasses

from ste_jax.decode.protocol import GREEDY, Sampling
from ste_jax.judging.judge import JudgeSettings
from ste_jax.judging.prompts import JudgePrompt, load_prompt

SMALL = 1_000_000_000
_VOTES = Sampling(temperature=0.7, top_p=0.9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What the caller asks for.

    Attributes:
      prompt: a built-in prompt or a template file; "": the one that the model was trained with, or "short"
        for a model of less than a billion parameters and "standard" for a larger one.
      rubric: takes the place of the prompt's own.
      max_new_tokens: of a judgment; 0, with `force_verdict`: the verdict alone; None: 32 for a small model,
        else 2048.
      force_verdict: see `config.AnnotateConfig`; None: for a small model only, which writes none by itself.
      votes: samples of each pair and order; 1: one greedy judgment.
      seed: of the votes, of ties between them, of the bootstrap and of the choice that `limit` makes.
      limit: comparisons to judge, drawn at random; 0: all.
      sequences: in flight.
      dtype: of weights and caches.
      mesh: sizes of the axes data, fsdp and tensor.
    """

    prompt: str = ""
    rubric: str = ""
    max_new_tokens: int | None = None
    force_verdict: bool | None = None
    votes: int = 1
    seed: int = 0
    limit: int = 0
    sequences: int = 32
    dtype: str = "float32"
    mesh: tuple[int, int, int] = (1, -1, 1)

    def __post_init__(self):
        for name, least in (("votes", 1), ("limit", 0), ("sequences", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be {least} or more, not {getattr(self, name)}")

    @property
    def sampling(self) -> Sampling:
        """Greedy for a single judgment, that of the paper for votes."""
        return GREEDY if self.votes == 1 else _VOTES

    def judging(self, parameters: int, trained_with: JudgePrompt | None) -> JudgeSettings:
        """Returns how a model of so many parameters judges, given the prompt it was trained with, if any.

        Raises:
          ValueError: judgments have no room for a verdict.
        """
        small = parameters < SMALL
        budget = (32 if small else 2048) if self.max_new_tokens is None else self.max_new_tokens
        forced = small if self.force_verdict is None else self.force_verdict
        if budget < (0 if forced else 1):
            raise ValueError(f"--max_new_tokens must be 1 or more, or 0 with --force_verdict, not {budget}")
        if self.prompt or not trained_with:
            prompt = load_prompt(self.prompt or ("short" if small else "standard"), self.rubric)
            prompt = prompt.with_sanitizer_of(trained_with) if trained_with else prompt
        else:
            prompt = dataclasses.replace(trained_with, rubric=self.rubric or trained_with.rubric)
        return JudgeSettings(prompt, budget, forced, self.seed)
