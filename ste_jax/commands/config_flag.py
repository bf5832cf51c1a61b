"""The flag `--config` of the commands of a run."""

from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags


def define_config(help_text: str) -> flags.FlagHolder:
    """Defines `--config=FILE`, and `--config.FIELD=VALUE` also for fields that the file leaves out."""
    holder = config_flags.DEFINE_config_file("config", None, help_text)
    flag = flags.FLAGS["config"]
    flag.parser = _Parser(flag.parser)
    return holder


class _Parser(flags.ArgumentParser):
    """Reads a configuration file and adds the fields that it leaves out."""

    def __init__(self, of_files: flags.ArgumentParser):
        self._of_files = of_files

    def parse(self, argument: str) -> Any:
        config = self._of_files.parse(argument)
        if isinstance(config, ConfigDict):
            from ste_jax.config import complete  # here: the help of a command must not wait for JAX

            with config.unlocked():
                complete(config)
        return config
