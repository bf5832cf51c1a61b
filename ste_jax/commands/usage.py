"""What `ste --help` and `ste COMMAND --help` print above the flags."""

import textwrap
from typing import NamedTuple

_INDENT = 22
_WIDTH = 110


class Entry(NamedTuple):
    """A line or more of the help.

    Attributes:
      syntax: how the command is called, without "ste".
      text: what it does.
      commands: the commands that it describes.
    """

    syntax: str
    text: str
    commands: tuple[str, ...]


_RUN = """\
ste COMMAND --config=CONFIG --workdir=FOLDER [--config.FIELD=VALUE ...]
  CONFIG is a file, or a shipped configuration: quickstart, pairwise_judge, small_judge,
  company_data, llama3_8b, llama3_70b, paper_small, paper_70b
"""
_STAGES = ("select", "pairs", "annotate", "train", "prefer", "evaluate")
_WORKING = ("run", *_STAGES)
_SECTIONS: dict[str, tuple[str, tuple[Entry, ...]]] = {
    "Runs": (
        _RUN,
        (
            Entry("run", "all stages of all iterations; the same command continues a run", ("run",)),
            Entry(
                "run --dry_run",
                "what would be read, made and shown to the judge, and the time or (--topology=v6e-8) the "
                "chip-hours",
                ("run",),
            ),
            Entry("select | pairs", "one stage", ("select", "pairs")),
            Entry(
                "annotate | train | prefer | evaluate --iteration=K",
                "one stage of one iteration (evaluate takes 0 for the seed model)",
                ("annotate", "train", "prefer", "evaluate"),
            ),
            Entry(
                "status WORKDIR", "finished and remaining stages, their speed and the time left", ("status",)
            ),
            Entry(
                "report WORKDIR", "writes summary.json and report.html from the finished stages", ("report",)
            ),
            Entry(
                "--redo=STAGE",
                "first deletes a stage (select, pairs, iteration_1/annotate, ...) and all later ones",
                _WORKING,
            ),
            Entry(
                "SIGTERM",
                "stops at the next safe point with exit code 75; the same command continues",
                _WORKING,
            ),
        ),
    ),
    "Judges": (
        "",
        (
            Entry(
                "judge compare|rank|score --model=MODEL --data=FILE --out=RESULT "
                "[--votes=K --on_flip=probability|abstain]",
                "one JSON line for each row of a file (`ste data FILE` shows it); needs no labels",
                ("judge",),
            ),
            Entry(
                "judge show --model=MODEL --data=FILE --row=0",
                "the prompt that the judge sees, its tokens and its answer",
                ("judge",),
            ),
            Entry(
                "calibrate --model=MODEL --data=LABELLED [--agreement=0.8]",
                "fits the temperature and the abstention threshold of a judge on labelled pairs",
                ("calibrate",),
            ),
            Entry(
                "evaluate --model=MODEL (--benchmark=NAME [--path=FOLDER] | --data=FILE) --out=RESULT "
                "[--json --limit=N --votes=K --probes=N --policy=wrong|rewardbench|dropped]",
                "any model on a benchmark or a file of pairs, in both orders; writes a result file",
                ("evaluate",),
            ),
            Entry(
                "stats RESULT [--length_calibration]",
                "all numbers of a result file, without a model",
                ("stats",),
            ),
            Entry("compare RESULT_A RESULT_B", "paired tests of two results", ("compare",)),
        ),
    ),
    "Tools": (
        "",
        (
            Entry(
                "config [NAME|FILE]",
                "every field of a configuration: its value, type and description, and the stages that it "
                "affects",
                ("config",),
            ),
            Entry(
                "init NAME",
                "prints the file of a shipped configuration: ste init company_data > mine.py",
                ("init",),
            ),
            Entry(
                "data FILE",
                "what is read from a file or folder of instructions or pairs: its form, columns, counts and "
                "first records; needs no model",
                ("data",),
            ),
            Entry(
                "plan --config=CONFIG --topology=v5p-128 [--phase=sft|dpo|prefill|decode] "
                "[--price_per_chip_hour=X] [--json]",
                "memory and cost of a run on TPU slices, by the TPU compiler; needs no TPU",
                ("plan",),
            ),
            Entry(
                "preflight --config=CONFIG --workdir=FOLDER [--wait=SECONDS]",
                "started on every worker: names workers that are missing, differ or lack something",
                ("preflight",),
            ),
            Entry(
                "convert SOURCE FOLDER",
                "a Hugging Face model or GGUF file to a model folder; a model folder to Hugging Face",
                ("convert",),
            ),
            Entry(
                "completion bash|zsh",
                'completes commands and flags in a shell: eval "$(ste completion bash)"',
                ("completion",),
            ),
        ),
    ),
}
_NOTES = """
`ste COMMAND --help` lists the flags of a command; hyphens are accepted for underscores. `ste --version`
prints the version. Runs write log files to WORKDIR/logs/. Other commands write one only for an unexpected
error: its traceback, in ste-logs/ of the current folder; the line on the terminal names the file.
On several hosts each host runs the same command; except on TPUs, set STE_COORDINATOR=HOST:PORT of worker 0,
STE_WORKERS, and STE_WORKER (from 0). docs/TPU.md describes what happens when a host is lost.
"""


def usage() -> str:
    """Returns the help of all commands."""
    text = "usage: ste COMMAND [FLAGS]\n"
    for title, (call, entries) in _SECTIONS.items():
        text += f"\n{title}:" + (f"     {call}\n" if call else "\n")
        text += "".join(map(_lines, entries))
    return text + _NOTES


def usage_of(command: str) -> str:
    """Returns the help of a command, to which the list of its flags is added."""
    found = [
        (call, [entry for entry in entries if command in entry.commands])
        for call, entries in _SECTIONS.values()
    ]
    text = ""
    for call, entries in found:
        if entries:
            text += "usage: " + (call.replace("COMMAND", command) if call else f"ste {command} [FLAGS]\n")
            text += "\n" + "".join(map(_lines, entries)) + "\n"
    return text


def _lines(entry: Entry) -> str:
    """Returns the syntax of an entry, and its text on the same line if there is room, else below."""
    head = textwrap.wrap(entry.syntax, _WIDTH, initial_indent="  ", subsequent_indent=" " * 11)
    body = textwrap.wrap(entry.text, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT)
    if len(head) == 1 and len(head[0]) < _INDENT:
        head, body[0] = [], head[0].ljust(_INDENT) + body[0].strip()
    return "\n".join([*head, *body]) + "\n"
