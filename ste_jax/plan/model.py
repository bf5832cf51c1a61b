"""Architecture of a configured model, without its weights."""

from ste_jax.checkpoint.source import open_model
from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS, preset_of
from ste_jax.paths import local_path


def architecture_of(model: str) -> LlamaConfig:
    """Returns the architecture of a local model, or else of a known name. Downloads nothing.

    Raises:
      SteError: "model_unknown" if there is no such file or name.
    """
    if local_path(model, "model").exists():
        return open_model(model).architecture
    preset = PRESETS.get(model) or preset_of(model)
    if preset is None:
        raise SteError(
            "model_unknown",
            f"plan: {model!r} is neither a local file nor a known name; set --config.model to a local model "
            f"or one of {', '.join(PRESETS)}",
        )
    return preset
