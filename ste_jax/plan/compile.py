"""Compiles programs with the TPU compiler: peak memory of a device, or out of memory."""

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import jax

from ste_jax.errors import SteError

T = TypeVar("T")
# Nothing runs on a local TPU, several compilers may run at a time, and their logs are not of interest.
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
    """Result of compiling a program.

    Attributes:
      peak_bytes: Peak memory per device (bytes). None: out of memory.
      seconds: Duration of the compilation in seconds.
      error: Error message of the compiler if the program is out of memory.
      program: The compiled program, which cannot run on this machine. None: out of memory.
    """

    peak_bytes: int | None
    seconds: float
    error: str = ""
    program: Any = None

    @property
    def text(self) -> str:
        """Text of the compiled program (HLO)."""
        return self.program.as_text()


def compile_program(lowered: Any) -> Compiled:
    """Compiles a program; running out of memory is a result, not an error."""
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
    """Calls a function in a new process, which frees the memory of the compiler and survives its crash.

    Raises:
      SteError: "out_of_host_memory" if the process died, most likely because memory ran out.
    """
    os.environ.update(_ENVIRONMENT)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise SteError(
                "out_of_host_memory",
                "plan: the process of the compiler was killed, most likely because this machine ran out of "
                "memory; free some (a 70B training step takes about 5 GB) and start again",
            ) from error
