import contextlib
import math
import random
import struct
import time
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from ste_jax.checkpoint.source import open_model
from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS
from ste_jax.models.rope import LinearScaling, RopeScaling
from ste_jax.sharding import TRAIN
from tests.errors import raises

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
    ("metadata", "factor"),
    [
        ({"scaling.factor": 4.0}, 4.0),  # no type: linear, as llama.cpp
        ({"scale_linear": 8.0}, 8.0),
        ({"scaling.type": "linear", "scaling.factor": 2.0, "scale_linear": 8.0}, 2.0),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, None),
        ({"scaling.factor": 0.0}, None),
        ({"scaling.type": "none", "scaling.factor": 4.0, "scaling.original_context_length": 64}, None),
    ],
    ids=str,
)
def test_linear_rope_scaling(tmp_path: Path, metadata: dict[str, object], factor: float | None) -> None:
    metadata = {f"llama.rope.{key}": value for key, value in metadata.items()}
    scaling = open_model(write(tmp_path / "m.gguf", random_tensors(), metadata)).architecture.rope_scaling
    assert scaling == (factor and LinearScaling(factor))


def test_two_rope_scalings_at_once_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors() | {"rope_freqs.weight": llama3_factors(H, 8.0)}
    path = write(tmp_path / "m.gguf", tensors, {"llama.rope.scale_linear": 4.0})
    with raises("model_unsupported", str(path), "llama.rope.scale_linear", "rope_freqs.weight"):
        open_model(path)


def test_metadata_without_effect_are_accepted(tmp_path: Path) -> None:
    plain = open_model(write(tmp_path / "plain.gguf", random_tensors())).architecture
    metadata = {
        "llama.vocab_size": V,
        "llama.expert_count": 0,
        "llama.logit_scale": 0.0,
        "llama.rope.scaling.attn_factor": 1.0,
        "other.logit_scale": 2.0,
    }
    assert open_model(write(tmp_path / "m.gguf", random_tensors(), metadata)).architecture == plain


@pytest.mark.parametrize(
    ("metadata", "code", "places"),
    [
        ({"llama.rope.scaling.attn_factor": 2.0}, "model_unsupported", ("llama.rope.scaling.attn_factor",)),
        ({"llama.rope.scaling.factor": -4.0}, "model_damaged", ("llama.rope.scaling.factor",)),
        ({"llama.rope.freq_base": 0.0}, "model_damaged", ("llama.rope.freq_base",)),
        ({"llama.rope.freq_base": math.inf}, "model_damaged", ("llama.rope.freq_base",)),
        ({"llama.rope.freq_base_swa": 1e4}, "model_unsupported", ("llama.rope.freq_base_swa",)),
        ({"llama.logit_scale": 2.0}, "model_unsupported", ("llama.logit_scale", "2.0")),
        ({"llama.pooling_type": 4}, "model_unsupported", ("llama.pooling_type", "reward")),
        ({"general.type": "adapter"}, "model_unsupported", ("general.type", "adapter")),
        ({"llama.block_count": 2**31 - 1}, "model_damaged", ("blk.2147483646.",)),
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


def gguf_bytes(version: int = 3, tensors: int = 0, fields: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, fields) + rest


def field(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    head = struct.pack("<Q1sI", 1, b"t", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


HUGE = 2**63 - 1


@pytest.mark.parametrize(
    "content",
    [
        gguf_bytes(tensors=HUGE),
        gguf_bytes(fields=HUGE),
        gguf_bytes(fields=1, rest=struct.pack("<Q", HUGE)),
        gguf_bytes(fields=1, rest=field(b"llama.x", 8, struct.pack("<Q", HUGE))),
        gguf_bytes(fields=1, rest=field(b"llama.x", 9, struct.pack("<IQ", 0, HUGE))),
        gguf_bytes(fields=1, rest=field(b"llama.x", 9, struct.pack("<IQ", 8, HUGE // 8))),
        gguf_bytes(fields=1, rest=field(b"llama.x", 9, struct.pack("<IQ", 9, 1) * 10_000)),
        gguf_bytes(fields=1, rest=field(b"llama.x", 99, b"")),
        gguf_bytes(fields=1, rest=field(b"\xff\xfe", 0, b"1")),
        gguf_bytes(fields=2, rest=field(b"llama.x", 0, b"1") * 2),
        gguf_bytes(fields=1, rest=field(b"general.alignment", 4, struct.pack("<I", 3))),
        gguf_bytes(
            tensors=1,
            fields=1,
            rest=field(b"general.alignment", 4, struct.pack("<I", 2**31)) + tensor((1,)),
        ),
        gguf_bytes(tensors=1, rest=tensor((HUGE, HUGE))),
        gguf_bytes(tensors=1, rest=tensor((2**32, 2**32))),  # 0 in 64 bits
        gguf_bytes(tensors=1, rest=tensor((0,))),
        gguf_bytes(tensors=1, rest=tensor((4,), offset=HUGE)),
        gguf_bytes(tensors=1, rest=tensor((1,) * 9)),
        gguf_bytes(tensors=1, rest=struct.pack("<Q1sI", 1, b"t", 2**32 - 1)),
        gguf_bytes(tensors=2, rest=tensor((1,)) * 2 + bytes(64)),
    ],
    ids=range(19),
)
def test_hostile_headers_end_in_an_error_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content + bytes(8))
    started = time.monotonic()
    with raises("model_damaged", str(path)):
        open_model(path)
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(("version", "place"), [(1, "version 1"), (4, "version 4"), (3 << 24, "big-endian")])
def test_other_versions_are_named(tmp_path: Path, version: int, place: str) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(version) + bytes(64))
    with raises("model_unsupported", str(tmp_path / "m.gguf"), place):
        open_model(tmp_path / "m.gguf")


def test_an_unknown_type_of_tensor_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(tensors=1, rest=tensor((4,), kind=77)) + bytes(64))
    with raises("model_unsupported", str(tmp_path / "m.gguf"), "tensor t", "77"):
        open_model(tmp_path / "m.gguf")


def test_a_file_of_a_vocabulary_alone_is_refused(tmp_path: Path) -> None:
    with raises("model_damaged", str(tmp_path / "m.gguf"), "token_embd.weight", "vocabulary"):
        open_model(write(tmp_path / "m.gguf", {}))


def test_random_damage_ends_in_an_error_or_nowhere(tmp_path: Path) -> None:
    path, draw = write(tmp_path / "m.gguf", random_tensors()), random.Random(0)
    whole, header = path.read_bytes(), 1500
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(header)] = draw.choice((0, 1, 8, 9, 127, 128, 255, draw.randrange(256)))
        path.write_bytes(changed)
        with contextlib.suppress(SteError):
            open_model(path)


def test_a_git_lfs_pointer_is_no_weights(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 98362432\n"
    (tmp_path / "m.gguf").write_text(pointer)
    with raises("model_damaged", str(tmp_path / "m.gguf"), "git lfs pull"):
        open_model(tmp_path / "m.gguf")
