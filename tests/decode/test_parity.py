"""The engine on the real model against transformers."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

import ste_jax
from ste_jax.checkpoint.source import open_model
from ste_jax.data.sources import read_instructions
from ste_jax.decode.engine import DecodeSettings, Engine
from ste_jax.decode.protocol import GREEDY, Request
from ste_jax.sharding import DECODE, make_mesh
from ste_jax.text.chat import Message, encode_chat

STARTER = str(Path(ste_jax.__file__).parent / "data" / "starter_instructions.jsonl")
PROMPTS, NEW_TOKENS = 20, 64
# Where two logits lie nearer than this, float32 sums in another order may swap them.
TIE = 1e-4


@pytest.mark.optimized
def test_greedy_tokens_are_those_of_transformers(smollm2_path):
    source, mesh = open_model(str(smollm2_path)), make_mesh((1, 1, 1), jax.devices()[:1])
    texts = [instruction.text for instruction in read_instructions(STARTER)[:PROMPTS]]
    prompts = [tuple(encode_chat(source.tokenizer, [Message("user", text)])) for text in texts]
    model = source.load(DECODE, mesh, param_dtype="float32", dtype="float32")
    settings = DecodeSettings(sequences=PROMPTS, buckets=(128,), samples_per_slot=1)
    engine = Engine(model, mesh, settings, stop_ids=())
    key = np.zeros((1, 2), np.uint32)
    requests = [Request(str(i), prompt, key, NEW_TOKENS) for i, prompt in enumerate(prompts)]
    made = {int(g.id): g.completions[0].tokens for g in engine.generate(requests, GREEDY)}

    reference = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
    ).eval()
    for i, prompt in enumerate(prompts):
        assert len(made[i]) == NEW_TOKENS
        # Greedy decoding by induction: after the same tokens, the next one is the reference's best, too.
        with torch.no_grad():
            logits = reference(torch.tensor([[*prompt, *made[i][:-1]]])).logits[0, len(prompt) - 1 :]
        chosen = logits[torch.arange(NEW_TOKENS), torch.tensor(made[i])]
        assert (logits.max(dim=-1).values - chosen).max() <= TIE, i
