"""Measures the speed of other libraries on CPU with the same prompts and weights: transformers or llama.cpp.

  python scripts/bench_peers.py --peer=llama.cpp --model=MODEL.gguf --prompts=FILE --samples=16

Arguments and output are those of `bench_decode.py`; the weights are a GGUF file. transformers computes in
float32 and processes the prompts one after the other. llama.cpp computes with the quantized weights of the
file and reads each prompt once for all of its samples. Requires
`pip install torch==2.13.0 gguf accelerate` or `pip install llama-cpp-python==0.3.36`.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

TEMPERATURE, TOP_P = 0.7, 0.9
# (prompt ids, new tokens) -> None: generates the samples of one prompt.
Sampler = Callable[[list[int], int], None]


def open_transformers(path: Path, samples: int) -> Sampler:
    """Returns a sampler that calls `generate` in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()

    @torch.inference_mode()
    def sample(prompt: list[int], new_tokens: int) -> None:
        ids = torch.tensor([prompt])
        sequences = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            num_return_sequences=samples,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        assert sequences.shape == (samples, len(prompt) + new_tokens)

    return sample


def open_llama_cpp(path: Path, samples: int) -> Sampler:
    """Returns a sampler that reads the prompt once and decodes in batches on all cores."""
    import llama_cpp as lib

    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())

    def make_context(positions: int):
        params = lib.llama_context_default_params()
        params.n_ctx = positions
        params.n_batch = max(positions, 1)
        params.n_seq_max = samples
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = os.cpu_count() or 1
        return lib.llama_init_from_model(model, params)

    def make_chain(seed: int):
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in (
            lib.llama_sampler_init_temp(TEMPERATURE),
            lib.llama_sampler_init_top_p(TOP_P, 1),
            lib.llama_sampler_init_dist(seed),
        ):
            lib.llama_sampler_chain_add(chain, link)
        return chain

    def feed(context, batch, rows: list[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, has_logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, has_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if lib.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")

    def sample(prompt: list[int], new_tokens: int) -> None:
        context = make_context(len(prompt) + samples * (new_tokens + 1))
        chains = [make_chain(seed) for seed in range(samples)]
        batch = lib.llama_batch_init(max(len(prompt), samples), 0, 1)
        last = len(prompt) - 1
        feed(context, batch, [(token, i, 0, i == last) for i, token in enumerate(prompt)])
        memory = lib.llama_get_memory(context)
        for sequence in range(1, samples):
            lib.llama_memory_seq_cp(memory, 0, sequence, 0, len(prompt))
        tokens = [lib.llama_sampler_sample(chain, context, last) for chain in chains]
        for position in range(len(prompt), len(prompt) + new_tokens - 1):
            feed(context, batch, [(token, position, i, True) for i, token in enumerate(tokens)])
            tokens = [lib.llama_sampler_sample(chain, context, i) for i, chain in enumerate(chains)]
        for chain in chains:
            lib.llama_sampler_free(chain)
        lib.llama_batch_free(batch)
        lib.llama_free(context)

    return sample


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, choices=("transformers", "llama.cpp"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    a = parser.parse_args()

    prompts = json.loads(a.prompts.read_text())
    open_sampler = open_transformers if a.peer == "transformers" else open_llama_cpp
    sample = open_sampler(a.model, a.samples)
    sample(prompts[0], 2)
    start = time.perf_counter()
    for prompt in prompts:
        sample(prompt, a.new_tokens)
    seconds = time.perf_counter() - start
    result = {
        "output_tokens_per_s": round(len(prompts) * a.samples * a.new_tokens / seconds, 1),
        "seconds": round(seconds, 2),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "prompts": len(prompts),
        "samples": a.samples,
        "new_tokens": a.new_tokens,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
