"""The flag `--config` of the commands of a run."""

import ast
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

SEVERAL_FORMS = {("pairs", "mode"), ("pairs", "test_mode")}


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
                _take_forms(config)
        return config


def _take_forms(config: ConfigDict) -> None:
    """Gives the fields that accept a name, a tuple or a mapping the form that the command line uses.

    ml_collections parses `--config.FIELD=VALUE` by the type of the value that the field has before.
    """
    for argument in sys.argv:
        name, _, value = argument.partition("=")
        *sections, field = name.removeprefix("--config.").split(".")
        if name.startswith("--config.") and (*sections, field) in SEVERAL_FORMS:
            section: Any = config
            for part in sections:
                section = section[part]
            form = type(_literal(value))
            with section.ignore_type():
                section[field] = ConfigDict() if form is dict else form()


def _literal(value: str) -> Any:
    """Returns the tuple or the mapping that a text holds, or the text."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return parsed if isinstance(parsed, tuple | dict) else value
