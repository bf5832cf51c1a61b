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
_MARK = "STE_RESTARTED"


def restart_with_options() -> None:
    """Starts this program again, in the same process, with those of the options that nobody has set.

    For the main program only, before anything else: what it has read or written is lost.
    """
    # The mark is the process's own, since programs that it starts inherit it.
    if os.environ.get(_MARK) == str(os.getpid()) or sys.platform != "linux" or not sys.executable:
        return
    os.environ[_MARK] = str(os.getpid())
    before = dict(os.environ)
    for variable, separator, name, value in _OPTIONS:
        given = os.environ.get(variable, "")
        is_file = variable == "XLA_FLAGS" and given.lstrip()[:1] not in ("", "-")
        if name not in given and not is_file:
            os.environ[variable] = separator.join([*([given] if given else []), f"{name}={value}"])
    if os.environ != before:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
