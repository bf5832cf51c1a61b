"""Options of XLA and glibc that make a process faster on CPU.

XLA on CPU allocates the memory of a program's intermediate values, gigabytes in training, from the kernel
anew in each call: with pages of 4 KiB these are 600,000 page faults per step of a Llama of 135M parameters,
with huge pages 2,000. It also assumes vectors of 256 bits where the processor has wider ones.
docs/PERFORMANCE.md has the gains.

XLA reads its options when JAX is loaded. glibc reads its own when a process starts, so the interpreter is
started again, in the same process (`exec`), before anything else has happened; no other way reaches an
allocator that is already running. It is not done under a debugger, a profiler or a coverage tool, which would
lose the process.
"""

import importlib.util
import os
import sys
from pathlib import Path

_XLA = "--xla_cpu_prefer_vector_width=512"
_GLIBC = "glibc.malloc.hugetlb=1"  # huge pages for the memory that malloc hands out
_MARK = "STE_RESTARTED"
# TPUs of versions 2 to 4, later TPUs, NVIDIA GPUs, those of Windows below WSL, and AMD GPUs.
_DEVICES = ("accel*", "vfio/*", "nvidia[0-9]*", "dxg", "kfd")
_OBSERVERS = ("pydevd", "debugpy", "coverage", "scalene", "viztracer")


def restart_with_options() -> None:
    """Sets the options that the user has not set, and starts this program again where glibc needs it.

    For the main program only, before JAX is loaded and before anything is read or written.
    """
    _add("XLA_FLAGS", _XLA, " ")
    # The mark holds the number of the process, since programs that it starts inherit the variable.
    if os.environ.get(_MARK) == str(os.getpid()) or sys.platform != "linux" or not sys.executable:
        return
    if _is_observed() or not _add("GLIBC_TUNABLES", _GLIBC, ":"):
        return
    os.environ[_MARK] = str(os.getpid())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def choose_platform() -> None:
    """Keeps JAX from looking for a TPU where there is none: libtpu would print errors and warnings first.

    For the main program only, before JAX is loaded. Does nothing if the user has set JAX_PLATFORMS, without
    libtpu, and on a machine with a device of a TPU or GPU.
    """
    devices = [device for pattern in _DEVICES for device in Path("/dev").glob(pattern)]
    if "JAX_PLATFORMS" not in os.environ and not devices and importlib.util.find_spec("libtpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"


def _add(variable: str, option: str, separator: str) -> bool:
    """Adds an option to an environment variable; returns False if the user has set it or names a file."""
    given = os.environ.get(variable, "")
    is_file = variable == "XLA_FLAGS" and given.lstrip()[:1] not in ("", "-")
    if option.partition("=")[0] in given or is_file:
        return False
    os.environ[variable] = separator.join([*([given] if given else []), option])
    return True


def _is_observed() -> bool:
    """Returns True under a debugger, a profiler or a coverage tool."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12: the hooks of debuggers and profilers
    if monitoring and any(monitoring.get_tool(tool) for tool in range(6)):
        return True
    return any(name in sys.modules for name in _OBSERVERS)
