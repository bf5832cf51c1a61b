"""Options of glibc and XLA that a process reads once, when it begins, and that make it faster on CPU.

XLA on CPU takes the memory of a program's intermediate values, gigabytes in training, from the kernel anew in
each call: in pages of 4 KiB these are 600,000 faults a step of a Llama of 135M, in huge pages 2,000. And it
takes vectors of 256 bits for granted where there are wider ones. docs/PERFORMANCE.md has what both save.
"""

import os
import sys

_OPTIONS = (
    # variable, what separates its options, name, value
    ("GLIBC_TUNABLES", ":", "glibc.malloc.hugetlb", "1"),  # huge pages for what malloc hands out
    ("XLA_FLAGS", " ", "--xla_cpu_prefer_vector_width", "512"),
)


def begin() -> None:
    """Starts this program again, in the same process, with those of the options that nobody has set."""
    missing = [one for one in _OPTIONS if one[2] not in os.environ.get(one[0], "")]
    # A caller who changed the arguments means this process, not the command that it was started by.
    called = sys.orig_argv[len(sys.orig_argv) - len(sys.argv[1:]) :] != sys.argv[1:]
    if not missing or called or sys.platform != "linux":
        return
    for variable, separator, name, value in missing:
        given = os.environ.get(variable)
        os.environ[variable] = separator.join([*([given] if given else []), f"{name}={value}"])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
