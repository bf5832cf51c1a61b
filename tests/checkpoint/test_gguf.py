import math
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import raises
from gguf import GGMLQuantizationType as Kind

from ste_jax.checkpoint.source import open_model
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS
from ste_jax.models.rope import RopeScaling
from ste_jax.sharding import TRAIN

V, D, F, L, HEADS, KV, H = 64, 32, 64, 2, 4, 2, 16
METADATA = {
    "llama.block_count": L,
    "llama.context_length": 128,
    "llama.embedding_length": D,
    "llama.feed_forward_length": F,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV,
    "llama.attention.key_length": H,
    "llama.attention.value_length": H,
    "llama.rope.dimension_count": H,
    "llama.rope.freq_base": 500_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def random_tensors() -> dict[str, np.ndarray]:
    shapes = {"token_embd.weight": (V, D), "output.weight": (V, D), "output_norm.weight": (D,)}
    for i in range(L):
        block = {
            "attn_norm": (D,),
            "attn_q": (HEADS * H, D),
            "attn_k": (KV * H, D),
            "attn_v": (KV * H, D),
            "attn_output": (D, HEADS * H),
            "ffn_norm": (D,),
            "ffn_gate": (F, D),
            "ffn_up": (F, D),
            "ffn_down": (D, F),
        }
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(
    path: Path,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, object] | None = None,
    kind: Kind = Kind.F32,
    architecture: str = "llama",
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**METADATA, **(metadata or {})}.items():
        if value is None:
            continue
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key, value)
    for name, array in tensors.items():
        own = kind if array.ndim == 2 else Kind.F32
        writer.add_tensor(name, gguf.quants.quantize(array, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(head_dim: int, factor: float) -> np.ndarray:
    """Returns the divisor of each frequency, as the converter of llama.cpp writes it."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * 500_000.0 ** (i / head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_smollm2_is_the_preset(smollm2_path: Path) -> None:
    source = open_model(smollm2_path)
    assert source.architecture == PRESETS["smollm2_135m"]
    assert source.name == smollm2_path.stem
    assert source.card is None
    assert source.tokenizer.vocab_size <= source.architecture.vocab_size


def test_metadata_becomes_the_architecture(tmp_path: Path) -> None:
    assert open_model(write(tmp_path / "m.gguf", random_tensors())).architecture == LlamaConfig(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=F,
        num_layers=L,
        num_heads=HEADS,
        num_kv_heads=KV,
        head_dim=H,
        context_length=128,
        rope_theta=500_000.0,
        rms_norm_eps=1e-5,
    )


def test_every_tensor_arrives_in_its_place(tmp_path: Path, one_device: jax.sharding.Mesh) -> None:
    theirs = random_tensors()
    source = open_model(write(tmp_path / "m.gguf", theirs))
    model = source.load(TRAIN, one_device, param_dtype="float32", dtype="float32")
    np.testing.assert_array_equal(model.embed[...], theirs["token_embd.weight"])
    np.testing.assert_array_equal(model.unembed[...], theirs["output.weight"])
    np.testing.assert_array_equal(model.final_norm[...], theirs["output_norm.weight"])
    # llama.cpp rotates rows 2i and 2i+1 of a head together; here i and i + H/2 are rotated together.
    order = [2 * i + half for half in range(2) for i in range(H // 2)]
    for i in range(L):
        layer = {k.removeprefix(f"blk.{i}."): v for k, v in theirs.items()}
        block = model.blocks
        for k in range(KV):
            key = layer["attn_k.weight"][k * H : (k + 1) * H][order]
            np.testing.assert_array_equal(block.wk[i][:, k], key.T)
            for g in range(HEADS // KV):
                head = slice((k * HEADS // KV + g) * H, (k * HEADS // KV + g + 1) * H)
                np.testing.assert_array_equal(block.wq[i][:, k, g], layer["attn_q.weight"][head][order].T)
                np.testing.assert_array_equal(block.wo[i][k, g], layer["attn_output.weight"][:, head].T)
        np.testing.assert_array_equal(block.wv[i].reshape(D, -1), layer["attn_v.weight"].T)
        np.testing.assert_array_equal(block.w_gate[i], layer["ffn_gate.weight"].T)
        np.testing.assert_array_equal(block.w_up[i], layer["ffn_up.weight"].T)
        np.testing.assert_array_equal(block.w_down[i], layer["ffn_down.weight"].T)
        np.testing.assert_array_equal(block.attention_norm[i], layer["attn_norm.weight"])
        np.testing.assert_array_equal(block.mlp_norm[i], layer["ffn_norm.weight"])


@pytest.mark.parametrize(("kind", "error"), [(Kind.F16, 1e-3), (Kind.BF16, 1e-2), (Kind.Q8_0, 2e-2)])
def test_other_types_are_dequantised(
    tmp_path: Path, one_device: jax.sharding.Mesh, kind: Kind, error: float
) -> None:
    theirs = random_tensors()
    source = open_model(write(tmp_path / "m.gguf", theirs, kind=kind))
    model = source.load(TRAIN, one_device, param_dtype="bfloat16", dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}
    down = model.blocks.w_down[1].astype(jnp.float32)
    np.testing.assert_allclose(down, theirs["blk.1.ffn_down.weight"].T, atol=error, rtol=2**-7)


def test_absent_output_means_tied(tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors.pop("output.weight")
    assert open_model(write(tmp_path / "m.gguf", tensors)).architecture.tie_embeddings


def test_defaults_of_the_format(tmp_path: Path) -> None:
    absent = ("attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base")
    tensors = random_tensors()
    metadata = {f"llama.{key}": None for key in absent} | {"llama.attention.head_count": 2}
    for name in tensors:  # two heads of D / 2 = 16
        if "attn_q" in name:
            tensors[name] = tensors[name][:D]
        if "attn_output" in name:
            tensors[name] = tensors[name][:, :D]
    cfg = open_model(write(tmp_path / "m.gguf", tensors, metadata)).architecture
    assert (cfg.head_dim, cfg.num_heads, cfg.rope_theta) == (16, 2, 10_000.0)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_rope_factors_of_llama_3_are_recognised(tmp_path: Path, factor: float) -> None:
    tensors = random_tensors() | {"rope_freqs.weight": llama3_factors(H, factor)}
    scaling = open_model(write(tmp_path / "m.gguf", tensors)).architecture.rope_scaling
    assert scaling == RopeScaling(factor, 1.0, 4.0, 8192)


def test_unknown_rope_factors_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors() | {"rope_freqs.weight": llama3_factors(H, 16.0)}
    with raises("model_unsupported", str(tmp_path / "m.gguf"), "rope_freqs.weight"):
        open_model(write(tmp_path / "m.gguf", tensors))


@pytest.mark.parametrize(
    ("metadata", "code", "places"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "model_unsupported", ("llama.rope.scaling.type", "yarn")),
        ({"llama.expert_count": 8}, "model_unsupported", ("llama.expert_count",)),
        ({"split.count": 3}, "model_unsupported", ("gguf-split",)),
        ({"llama.rope.dimension_count": 8}, "model_unsupported", ("llama.rope.dimension_count", "16")),
        ({"llama.block_count": None}, "model_damaged", ("llama.block_count",)),
        (
            {"llama.attention.layer_norm_rms_epsilon": None},
            "model_damaged",
            ("llama.attention.layer_norm_rms_epsilon",),
        ),
        ({"llama.block_count": 3}, "model_damaged", ("blk.2.attn_norm.weight",)),
        ({"llama.block_count": 1}, "model_unsupported", ("blk.1.",)),
        ({"llama.feed_forward_length": 96}, "model_mismatch", ("ffn_gate.weight", "(64, 32)", "(96, 32)")),
    ],
    ids=str,
)
def test_unsupported_and_damaged_files_are_refused(
    tmp_path: Path, metadata: dict[str, object], code: str, places: tuple[str, ...]
) -> None:
    with raises(code, str(tmp_path / "m.gguf"), *places):
        open_model(write(tmp_path / "m.gguf", random_tensors(), metadata))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", random_tensors(), architecture="qwen2")
    with raises("model_unsupported", str(path), "general.architecture", "qwen2"):
        open_model(path)


@pytest.mark.parametrize(
    ("name", "tensor", "code"),
    [
        ("blk.1.ffn_up.weight", None, "model_damaged"),
        ("token_embd.weight", None, "model_damaged"),
        ("output_norm.weight", np.ones(31, np.float32), "model_mismatch"),
        ("blk.0.attn_q.bias", np.ones(64, np.float32), "model_unsupported"),
    ],
    ids=["layer", "embedding", "shape", "bias"],
)
def test_odd_tensors_are_refused(tmp_path: Path, name: str, tensor: np.ndarray | None, code: str) -> None:
    tensors = random_tensors() | {name: tensor}
    path = write(tmp_path / "m.gguf", {k: v for k, v in tensors.items() if v is not None})
    with raises(code, str(path), name):
        open_model(path)


@pytest.mark.parametrize("keep", [0, 3, 21, 200, 1000, 30_000, -40])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "m.gguf", random_tensors())
    path.write_bytes(path.read_bytes()[:keep])
    with raises("model_damaged", str(path)):
        open_model(path)


def test_a_git_lfs_pointer_is_no_weights(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 98362432\n"
    (tmp_path / "m.gguf").write_text(pointer)
    with raises("model_damaged", str(tmp_path / "m.gguf"), "git lfs pull"):
        open_model(tmp_path / "m.gguf")
