"""Compiles decoding for TPU slices ahead of time: the largest batch that fits, and a roofline.

  ALLOW_MULTIPLE_LIBTPU_LOAD=1 JAX_PLATFORMS=cpu python scripts/plan_decode.py --slice=v6e-8 --slice=v5p-8

Requires the TPU compiler (`pip install -e '.[plan]'`) but no TPU. The programs are those of the engine, with
Llama-3-70B in bfloat16. Prints Markdown tables; peak memory is reported by the compiler, the roofline is
computed from sizes and published speeds.
"""

import argparse
import sys

from ste_jax.decode.settings import DecodeSettings
from ste_jax.decode.shape import Shape, decode_shape
from ste_jax.models.presets import PRESETS
from ste_jax.plan.compile import Compiled
from ste_jax.plan.decode import (
    compile_decode,
    compile_prefill,
    roofline,
    slice_mesh,
    suffix_bytes,
    token_bytes,
)
from ste_jax.plan.topology import parse_topology

GIB = 2**30
ROOFLINE_SLICES = ("v5e-16", "v5p-8", "v6e-8")


def largest(slice_: str, model: str, shape_of, start: int) -> tuple[int, Compiled, Compiled]:
    """Returns the largest number of slots that fits, found by compiling, and its two compiled programs."""
    cfg, mesh = PRESETS[model], slice_mesh(slice_)
    topology = parse_topology(slice_)
    chip, chips = topology.chip, topology.chips

    def fits(slots: int) -> tuple[Compiled, Compiled] | None:
        shape = shape_of(slots)
        decode = compile_decode(cfg, mesh, shape)
        prefill = compile_prefill(cfg, mesh, shape)
        room, peak = chip.hbm - suffix_bytes(cfg, shape) / chips, prefill.peak_bytes
        good = decode.peak_bytes is not None and peak is not None and peak <= room
        print(f"{slice_}: {slots} slots {'fit' if good else 'do not fit'}", file=sys.stderr, flush=True)
        return (decode, prefill) if good else None

    low, high, best = 0, None, None
    slots = start
    while high is None or high - low > 1:
        if found := fits(slots):
            low, best = slots, found
        else:
            high = slots
        slots = low + 1 if high is None else (low + high) // 2
    if best is None:
        raise SystemExit(f"{slice_}: a single slot does not fit")
    return low, *best


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slice", action="append", required=True)
    parser.add_argument("--model", default="llama3_70b", choices=sorted(PRESETS))
    parser.add_argument("--prompt", type=int, default=2560)
    parser.add_argument(
        "--suffix", type=int, default=1280, help="generated tokens of a sample, a multiple of --suffix-chunk"
    )
    parser.add_argument("--suffix-chunk", type=int, default=128)
    parser.add_argument("--samples-per-slot", type=int, default=15)
    parser.add_argument("--prompts-per-slot", type=int, default=1)
    parser.add_argument("--start", type=int, default=16, help="number of slots to try first")
    a = parser.parse_args()

    def shape_of(slots: int) -> Shape:
        settings = DecodeSettings(
            sequences=slots * a.samples_per_slot,
            prefix_tokens=slots * a.prompts_per_slot * a.prompt,
            prefill_tokens=a.prompt,
            prompts_per_slot=a.prompts_per_slot,
            suffix_chunk=a.suffix_chunk,
            samples_per_slot=a.samples_per_slot,
        )
        return decode_shape(
            settings,
            (a.prompt,),
            longest=a.prompt,
            requests=slots * a.prompts_per_slot,
            samples=a.samples_per_slot,
            new_tokens=a.suffix,
        )

    cfg = PRESETS[a.model]
    print("| slice | sequences | decode peak GiB | prefill peak and suffixes GiB | HBM limit GiB |")
    print("|---|---|---|---|---|")
    for slice_ in a.slice:
        topology = parse_topology(slice_)
        chip, chips = topology.chip, topology.chips
        slots, decode, prefill = largest(slice_, a.model, shape_of, a.start)
        suffixes = suffix_bytes(cfg, shape_of(slots)) / chips
        peaks = [(decode.peak_bytes or 0) / GIB, ((prefill.peak_bytes or 0) + suffixes) / GIB]
        print(
            f"| {slice_} | {slots * a.samples_per_slot} | {peaks[0]:.2f} | {peaks[1]:.2f} | "
            f"{chip.hbm / GIB:.2f} |",
            flush=True,
        )

    print("\n| slice | prefix | sequences | weights GB | caches GB | TFLOP | step ms | tokens/s/chip |")
    print("|---|---|---|---|---|---|---|---|")
    for slice_ in ROOFLINE_SLICES:
        topology = parse_topology(slice_)
        chip, chips = topology.chip, topology.chips
        for shared in (False, True):
            room = 0.9 * chip.hbm * chips - 2 * cfg.parameter_count
            prefix, suffix = a.prompt * token_bytes(cfg), a.suffix * token_bytes(cfg)
            slots = int(room / (prefix * (1 if shared else a.samples_per_slot) + suffix * a.samples_per_slot))
            r = roofline(
                cfg,
                chip,
                chips,
                sequences=slots * a.samples_per_slot,
                samples_per_slot=a.samples_per_slot,
                prompt=2500,
                suffix=400,
                shared=shared,
            )
            prefix_kept = "shared" if shared else "one per sample"
            numbers = f"{r.weight_bytes / 1e9:.0f} | {r.cache_bytes / 1e9:.0f} | {r.flops / 1e12:.1f}"
            speed = f"{r.seconds * 1e3:.1f} | {r.tokens_per_chip:.0f}"
            print(f"| {slice_} | {prefix_kept} | {r.sequences} | {numbers} | {speed} |")


if __name__ == "__main__":
    main()
