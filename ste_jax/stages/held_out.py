"""Labelled pairs and prompts of benchmarks, which must not meet the pairs that a run makes."""

import dataclasses
from collections.abc import Sequence

from ste_jax.config import PairMode, PairsConfig, RunConfig
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.data.prompts import read_prompts
from ste_jax.instructions.filters import FunnelStep
from ste_jax.instructions.held_out import contains, overlaps
from ste_jax.pairs.splits import check_labelled_ids, labelled_halves
from ste_jax.records import Instruction
from ste_jax.storage.files import digest

# Steps of the funnel of instructions.
IN_LABELLED, IN_BENCHMARKS = "in the labelled pairs", "in a file of benchmark prompts"


def pair_id(settings: PairsConfig, instruction_id: str, mode: PairMode) -> str:
    """Returns the id of a constructed pair; with a single mode it is the id of the instruction."""
    return instruction_id if settings.modes == (mode,) else f"{instruction_id}.{mode}"


def check_labelled_pairs(
    config: RunConfig, instructions: Sequence[Instruction], named: NamedColumns = BY_NAME
) -> None:
    """Raises SteError if the labelled pairs cannot be read or have ids of pairs that will be constructed.

    Args:
      config: the configuration of the run.
      instructions: the instructions that pairs are made from.
      named: columns of the labelled pairs that the judge prompt shows.
    """
    validation, labelled = labelled_halves(config.seed, config.labelled_pairs, named)
    ids = [pair_id(config.pairs, i.id, mode) for i in instructions for mode in config.pairs.modes]
    check_labelled_ids(config.labelled_pairs, [*validation, *labelled], ids)


@dataclasses.dataclass(frozen=True)
class HeldOutTexts:
    """Prompts that no pair to train on may be made of.

    Attributes:
      labelled: prompts of the labelled pairs.
      benchmarks: prompts of the files of `select.decontaminate`.
    """

    labelled: list[str]
    benchmarks: list[str]

    @classmethod
    def read(cls, config: RunConfig) -> "HeldOutTexts":
        """Reads the prompts from the files that a configuration names."""
        labelled = read_prompts(config.labelled_pairs) if config.labelled_pairs else []
        files = config.select.decontaminate
        return cls(labelled, [prompt for path in files for prompt in read_prompts(path)])

    def inputs(self) -> dict[str, str]:
        """Returns the hash of each kind of prompts that there is, for the fingerprint of the stage."""
        texts = {"labelled_prompts": self.labelled, "decontaminate": self.benchmarks}
        return {name: digest(sorted(set(prompts))) for name, prompts in texts.items() if prompts}

    def left_out_of(
        self, instructions: list[Instruction], threshold: float, funnel: list[FunnelStep]
    ) -> list[Instruction]:
        """Returns the instructions that are not held out; each kind of prompts adds a step to the funnel."""
        kinds = ((IN_LABELLED, contains, self.labelled), (IN_BENCHMARKS, overlaps, self.benchmarks))
        for name, find, held_out in kinds:
            if held_out:
                found = find([i.whole for i in instructions], held_out, threshold)
                instructions = [
                    i for i, is_held_out in zip(instructions, found, strict=True) if not is_held_out
                ]
                funnel.append(FunnelStep(name, sum(found), len(instructions)))
        return instructions
