"""Fields of configuration sections: each declares which stages a change of its value makes stale."""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

# The stages of a run, by the name of their folder. "votes" and "probes" are parts of stage
# "evaluate": the majority vote, and the altered pairs.
STAGES = ("select", "pairs", "annotate", "train", "prefer", "evaluate", "votes", "probes")

# Stages whose records follow from the judgments of a model: also training, which validates its checkpoints.
JUDGING = ("annotate", "train", "prefer", "evaluate", "votes", "probes")

# For a field of a section that several fields of a configuration hold: the stages of the holding field.
INHERITED = ("inherited",)


def config_field(
    default: Any = dataclasses.MISSING,
    *,
    affects: Sequence[str],
    default_factory: Any = dataclasses.MISSING,
    by_content: bool = False,
    used: Callable[[Any], bool] | None = None,
) -> Any:
    """Returns a dataclass field of a configuration section.

    Args:
      default: default value; without it and `default_factory` the field is required.
      affects: stages whose records become stale when the value changes (see `STAGES`); `INHERITED` for those
        of the field that holds the section; () for values that change no record, such as how the work is
        divided between devices. A stage is not listed for changes that reach it through the records or the
        model that it reads: their hashes are among the inputs of its fingerprint.
      default_factory: function that returns the default value.
      by_content: True if the value names a file, a model or a choice of records. Those stages then become
        stale when the content changes, not its name: the hash of the content is an input of their
        fingerprint, and the value is not part of it.
      used: function of the section that returns False where its other values leave this field without
        effect. None: it always has one.
    """
    metadata = {"affects": tuple(affects), "by_content": by_content, "used": used}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def values_affecting(section: Any, stage: str, inherited: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the values of a section, and of those inside it, that are part of a stage's fingerprint.

    Args:
      section: configuration section, a dataclass whose fields are made by `config_field`.
      stage: name from `STAGES`, or "inherited" for the fields that take the stages of their holder.
      inherited: stages of the field that holds the section.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value, metadata = getattr(section, field.name), field.metadata
        affects = inherited if metadata["affects"] == INHERITED else metadata["affects"]
        if metadata["by_content"] or (metadata["used"] and not metadata["used"](section)):
            continue
        if dataclasses.is_dataclass(value):
            if inner := values_affecting(value, stage, affects):
                values[field.name] = inner
        elif stage in affects:
            values[field.name] = value
    return values


def type_text(kind: Any) -> str:
    """Returns the type of a field in words: the choices of a Literal, and the forms of a union."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f'"{value}"' for value in arguments)
    if origin in (types.UnionType, typing.Union):
        of_these = {
            tuple[arguments[0], ...]: "a tuple of these",
            dict[arguments[0], float]: "a mapping from these to shares",
        }
        return " or ".join(of_these.get(argument) or type_text(argument) for argument in arguments)
    if arguments:
        inner = ("..." if argument is ... else type_text(argument) for argument in arguments)
        return f"{origin.__name__}[{', '.join(inner)}]"
    return kind.__name__
