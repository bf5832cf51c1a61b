"""The TPU compiler's answer to a program: the memory of a device, or that it does not fit."""

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import jax

T = TypeVar("T")
# Nothing is compiled for the machine at hand, several compilers may run on it, and their log is noise.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler said of a program.

    Attributes:
      peak_bytes: the most that a device holds at once; None: the program does not fit.
      seconds: that the compilation took.
      error: of the compiler, where the program does not fit.
      program: the compiled program, which cannot run here; None where it does not fit.
    """

    peak_bytes: int | None
    seconds: float
    error: str = ""
    program: Any = None

    @property
    def text(self) -> str:
        """The program in the compiler's own language."""
        return self.program.as_text()


def compile_program(lowered: Any) -> Compiled:
    """Compiles; running out of memory is a result."""
    begin = time.monotonic()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(None, time.monotonic() - begin, str(error))
    peak = program.memory_analysis().peak_memory_in_bytes
    return Compiled(peak, time.monotonic() - begin, program=program)


def in_child(function: Callable[..., T], *args: Any) -> T:
    """Calls a function in a fresh process: the compiler's memory goes with it, and so does its death.

    Raises:
      ValueError: the process died, most likely for want of memory.
    """
    os.environ.update(_ENVIRONMENT)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise ValueError(
                "plan: the process of the compiler was killed, most likely for want of memory here; "
                "free some (a 70B training step takes about 5 GB) and start again"
            ) from error
