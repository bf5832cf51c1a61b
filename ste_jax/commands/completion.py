"""`ste completion` prints a script that completes commands, flags and fields of configurations."""

from absl import app

# Flags and fields are those that the installed `ste` prints, so the script does not go out of date.
_BASH = """\
_ste() {
  local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
    return
  fi
  case "$word" in
    --config.*)
      COMPREPLY=($(compgen -W "$(ste config 2>/dev/null |
        sed -n 's/^\\([a-z_0-9.]*\\) = .*/--config.\\1=/p')" -- "$word")) ;;
    -*)
      COMPREPLY=($(compgen -W "$(ste "$command" --help 2>/dev/null |
        sed -n 's/^ *--\\(\\[no\\]\\)\\{0,1\\}\\([a-z_0-9]*\\):.*/--\\2/p')" -- "$word")) ;;
    *) COMPREPLY=() ;;
  esac
}
complete -o default -o bashdefault -F _ste ste
"""
_ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def main(argv: list[str]) -> None:
    """Runs `ste completion SHELL`."""
    if len(argv) != 3 or argv[2] not in ("bash", "zsh"):
        raise app.UsageError("completion takes the name of a shell, bash or zsh")
    print((_ZSH if argv[2] == "zsh" else "") + script(), end="")


def script() -> str:
    """Returns the completions as a function of bash."""
    from ste_jax.cli import MODULES

    return _BASH.replace("COMMANDS", " ".join(MODULES))
