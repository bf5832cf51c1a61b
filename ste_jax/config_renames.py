"""Names and values of the configuration that were renamed; the old ones are refused with the new one."""

from typing import Any

from ste_jax.errors import SteError

# Dotted names of fields that were renamed, with their new names. A row of `train` holds for `prefer` too.
RENAMED: dict[str, str] = {
    "decode.columns": "decode.suffix_chunk",
    "decode.prompts": "decode.prompts_per_slot",
    "decode.steps": "decode.decode_steps_per_sync",
    "decode.wave": "decode.samples_per_slot",
    "pairs.hotter": "pairs.high_temperature",
    "train.method": "train.objective",
}

# (dotted name of the field, old value) -> new value.
RENAMED_VALUES: dict[tuple[str, str], str] = {
    ("pairs.mode", "hotter"): "high_temperature",
    ("pairs.mode", "shortened"): "truncated",
    ("pairs.mode", "worse"): "degraded",
}


def check_renamed(value: dict[str, Any], prefix: str = "") -> None:
    """Refuses fields and values that were renamed.

    Args:
      value: nested dict of (a part of) a configuration.
      prefix: dotted name of that part, ending in a dot; "" for the whole configuration.

    Raises:
      SteError: "config_renamed"; the text names the new field or value.
    """
    for field, inner in value.items():
        name = prefix + field
        if new := renamed_field(name):
            raise SteError("config_renamed", f"config: {name} is now {new}")
        for old in inner if isinstance(inner, tuple | dict) else (inner,):
            if isinstance(old, str) and (new := renamed_value(name, old)):
                raise SteError("config_renamed", f"config: the value {old!r} of {name} is now {new!r}")
        if isinstance(inner, dict):
            check_renamed(inner, f"{name}.")


def renamed_field(name: str) -> str | None:
    """Returns the new dotted name of a field under its old one, or None if it was not renamed."""
    section = name.partition(".")[0]
    new = RENAMED.get(name) or RENAMED.get(_as_train(name))
    return new and (f"{section}{new.removeprefix('train')}" if section == "prefer" else new)


def renamed_value(name: str, value: str) -> str | None:
    """Returns the new form of a value of a field, or None if it was not renamed."""
    return RENAMED_VALUES.get((_as_train(name), value))


def _as_train(name: str) -> str:
    """Returns the name of a field of `prefer` as a field of `train`: the sections have the same fields."""
    return f"train{name.removeprefix('prefer')}" if name.startswith("prefer.") else name
