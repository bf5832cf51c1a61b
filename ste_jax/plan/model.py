"""The architecture of a configured model, without its weights."""

from ste_jax.checkpoint.source import open_model
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS, preset_of
from ste_jax.paths import local_path


def architecture_of(model: str) -> LlamaConfig:
    """Returns the architecture of a model that lies here, else the one that its name tells, fetching nothing.

    Raises:
      ValueError: there is no such file, and the name tells nothing.
    """
    if local_path(model, "model").exists():
        return open_model(model).architecture
    preset = PRESETS.get(model) or preset_of(model)
    if preset is None:
        raise ValueError(
            f"plan: {model!r} is no file here and no known name; give a local model or one of "
            f"{', '.join(PRESETS)} as --config.model"
        )
    return preset
