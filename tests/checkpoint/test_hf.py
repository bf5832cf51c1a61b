import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ste_jax.checkpoint.export import config_fields
from ste_jax.checkpoint.hf import read_architecture
from ste_jax.checkpoint.source import open_model
from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig, hidden_states
from ste_jax.models.rope import LinearScaling, RopeScaling
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.text.tokenizer import load_tokenizer
from tests.errors import raises

Make = Callable[..., Path]
# As published with Llama 3.1 8B, in the form that transformers wrote before version 5.
LLAMA_31 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}


def config_of(tmp_path: Path, **changes: object) -> LlamaConfig:
    fields = {k: v for k, v in {**LLAMA_31, **changes}.items() if v != "absent"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return read_architecture(tmp_path / "config.json")


def edit_config(folder: Path, **changes: object) -> None:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_config_in_both_forms_of_rope(tmp_path: Path) -> None:
    old = config_of(tmp_path)
    assert old.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert (old.rope_theta, old.head_dim, old.tie_embeddings) == (500_000.0, 128, False)
    assert old.parameter_count == 8_030_261_248
    parameters = LLAMA_31["rope_scaling"] | {"rope_theta": 500000.0}
    assert config_of(tmp_path, rope_parameters=parameters, rope_scaling="absent", rope_theta="absent") == old
    plain = config_of(
        tmp_path, rope_parameters={"rope_theta": 1e4, "rope_type": "default"}, rope_scaling=None
    )
    assert (plain.rope_theta, plain.rope_scaling) == (10_000.0, None)


def test_config_defaults_of_old_models(tmp_path: Path) -> None:
    names = ("num_key_value_heads", "rope_theta", "rope_scaling", "rms_norm_eps", "max_position_embeddings")
    ours = config_of(tmp_path, **dict.fromkeys(names, "absent"))
    theirs = transformers.LlamaConfig(**{k: v for k, v in LLAMA_31.items() if k not in names})
    assert ours.num_kv_heads == theirs.num_key_value_heads == 32
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.context_length == theirs.max_position_embeddings
    assert config_of(tmp_path, head_dim=64).head_dim == 64
    assert config_of(tmp_path, head_dim=None).head_dim == 128


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"model_type": "qwen2"}, "model_unsupported", "model_type"),
        ({"model_type": ["llama"]}, "model_unsupported", "model_type"),
        ({"model_type": "mistral"}, "model_unsupported", "sliding_window"),  # absent: 4096
        ({"model_type": "mistral", "sliding_window": 8192}, "model_unsupported", "sliding_window"),
        ({"architectures": ["LlamaForTokenClassification"]}, "model_unsupported", "LlamaForTokenClassific"),
        ({"architectures": ["LlamaModel"]}, "model_unsupported", "architectures"),
        ({"architectures": 3}, "model_unsupported", "architectures"),
        ({"model_type": "absent"}, "model_unsupported", "model_type"),
        ({"attention_bias": True}, "model_unsupported", "attention_bias"),
        ({"mlp_bias": True}, "model_unsupported", "mlp_bias"),
        ({"hidden_act": "gelu"}, "model_unsupported", "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "model_unsupported", "quantization_config"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "model_unsupported",
            "rope_scaling.rope_type",
        ),
        (
            {"rope_scaling": None, "rope_parameters": {"rope_type": "longrope"}},
            "model_unsupported",
            "rope_parameters.rope_type",
        ),
        (
            {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "model_unsupported",
            "rope_scaling.partial_rotary_factor",
        ),
        ({"rope_scaling": {"factor": 4.0}}, "model_damaged", "rope_scaling.factor"),
        ({"rope_scaling": {"type": "linear"}}, "model_damaged", "factor"),
        ({"rope_scaling": [2.0]}, "model_damaged", "rope_scaling"),
        ({"rope_theta": math.inf}, "model_damaged", "rope_theta"),
        ({"rope_theta": 10**400}, "model_damaged", "rope_theta"),
        ({"hidden_size": 2**40}, "model_damaged", "hidden_size"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "model_damaged", "low_freq_factor"),
        ({"vocab_size": "absent"}, "model_damaged", "vocab_size"),
        ({"hidden_size": "4096"}, "model_damaged", "hidden_size"),
        ({"num_hidden_layers": 0}, "model_damaged", "num_hidden_layers"),
        ({"num_key_value_heads": 7}, "model_invalid", "heads"),
        ({"head_dim": 3}, "model_invalid", "head_dim"),
    ],
    ids=str,
)
def test_unsupported_configs_are_refused(
    tmp_path: Path, change: dict[str, object], code: str, field: str
) -> None:
    with raises(code, f"{tmp_path}/config.json", field):
        config_of(tmp_path, **change)


@pytest.mark.parametrize("size", ["1GB", "20KB"], ids=["whole", "shards"])
def test_every_tensor_arrives_in_its_place(hf_folder: Make, one_device: jax.sharding.Mesh, size: str) -> None:
    folder = hf_folder(max_shard_size=size)
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 2) == (size == "20KB")
    theirs = {k: v.numpy() for file in files for k, v in load_file(file).items()}
    model = open_model(folder).load(TRAIN, one_device, param_dtype="float32", dtype="float32")
    np.testing.assert_array_equal(model.embed[...], theirs["model.embed_tokens.weight"])
    np.testing.assert_array_equal(model.unembed[...], theirs["lm_head.weight"])
    np.testing.assert_array_equal(model.final_norm[...], theirs["model.norm.weight"])
    for i in range(3):
        layer = {k.removeprefix(f"model.layers.{i}."): v for k, v in theirs.items()}
        block = model.blocks
        np.testing.assert_array_equal(block.attention_norm[i], layer["input_layernorm.weight"])
        np.testing.assert_array_equal(block.mlp_norm[i], layer["post_attention_layernorm.weight"])
        # Query head 3 is the second of the two heads that share key/value head 1.
        np.testing.assert_array_equal(block.wq[i][:, 1, 1], layer["self_attn.q_proj.weight"][24:32].T)
        np.testing.assert_array_equal(block.wk[i][:, 1], layer["self_attn.k_proj.weight"][8:16].T)
        np.testing.assert_array_equal(block.wv[i][:, 1], layer["self_attn.v_proj.weight"][8:16].T)
        np.testing.assert_array_equal(block.wo[i][1, 1], layer["self_attn.o_proj.weight"][:, 24:32].T)
        np.testing.assert_array_equal(block.w_gate[i], layer["mlp.gate_proj.weight"].T)
        np.testing.assert_array_equal(block.w_up[i], layer["mlp.up_proj.weight"].T)
        np.testing.assert_array_equal(block.w_down[i], layer["mlp.down_proj.weight"].T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_no_dtype_loses_a_bit(hf_folder: Make, one_device: jax.sharding.Mesh, dtype: torch.dtype) -> None:
    folder = hf_folder(dtype=dtype)
    theirs = load_file(folder / "model.safetensors")["model.layers.2.mlp.down_proj.weight"]
    same = str(dtype).removeprefix("torch.")
    for param_dtype in (same, "float32"):
        model = open_model(folder).load(TRAIN, one_device, param_dtype=param_dtype, dtype="float32")
        ours = model.blocks.w_down[2]
        assert ours.dtype == jnp.dtype(param_dtype)
        np.testing.assert_array_equal(ours.astype(jnp.float32), theirs.float().numpy().T)


def test_loads_onto_a_mesh_piece_by_piece(hf_folder: Make) -> None:
    source = open_model(hf_folder())
    mesh = make_mesh((2, 2, 2))
    model = source.load(TRAIN, mesh, param_dtype="float32", dtype="float32")
    one = source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
    gate = model.blocks.w_gate[...]
    assert gate.sharding == jax.NamedSharding(mesh, TRAIN.spec(None, "embed", "mlp"))
    assert {shard.data.shape for shard in gate.addressable_shards} == {(3, 16, 24)}
    for ours, other in zip(jax.tree.leaves(model), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_digest_follows_the_weights(hf_folder: Make) -> None:
    folder = hf_folder()
    source = open_model(folder)
    assert source.digest() == source.digest() == open_model(folder).digest()
    edit_weights(folder, lambda t: t["model.norm.weight"].add_(1.0))
    assert open_model(folder).digest() != source.digest()


def test_fields_that_mean_the_same_are_accepted(tmp_path: Path) -> None:
    plain = config_of(tmp_path)
    for change in (
        {"attention_bias": None, "mlp_bias": None},
        {"hidden_act": "swish"},
        {"quantization_config": {}},
        {"architectures": None},
        {"architectures": ["OtherForCausalLM"]},
    ):
        assert config_of(tmp_path, **change) == plain


def test_mistral_without_an_effective_window_is_a_llama(tmp_path: Path) -> None:
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    assert config_of(tmp_path, **mistral, sliding_window=None) == config_of(tmp_path)
    assert config_of(tmp_path, **mistral, sliding_window=131072) == config_of(tmp_path)
    absent = dict.fromkeys(("num_key_value_heads", "max_position_embeddings"), "absent")
    ours = config_of(tmp_path, **mistral, **absent, sliding_window=None)
    theirs = transformers.MistralConfig()
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.context_length == theirs.max_position_embeddings


def test_linear_and_dynamic_rope(tmp_path: Path) -> None:
    linear = config_of(tmp_path, rope_scaling={"type": "linear", "factor": 4})
    assert linear.rope_scaling == LinearScaling(4.0)
    assert LlamaConfig.from_json(json.loads(json.dumps(linear.to_json()))) == linear
    for kind in ({"rope_type": "dynamic", "factor": 4.0}, {"rope_type": "linear", "factor": 1.0}):
        assert config_of(tmp_path, rope_scaling=kind).rope_scaling is None


def test_an_exported_config_is_read_back(tmp_path: Path, tokenizer_folder: Make) -> None:
    tokenizer = load_tokenizer(tokenizer_folder())
    for scaling in (None, {"type": "linear", "factor": 4.0}, LLAMA_31["rope_scaling"]):
        cfg = config_of(tmp_path, rope_scaling=scaling)
        exported = config_fields(cfg, np.dtype(np.float32), tokenizer)
        (tmp_path / "config.json").write_text(json.dumps(exported))
        assert read_architecture(tmp_path / "config.json") == cfg


def test_damaged_headers_end_in_an_error_or_are_read(hf_folder: Make) -> None:
    folder, draw = hf_folder(), random.Random(0)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(1000)] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            open_model(folder)
        except SteError as error:
            refused += str(folder) in str(error)
    assert refused > 50


def test_the_older_rope_field_goes_first(tmp_path: Path) -> None:
    parameters = {"rope_type": "default", "rope_theta": 1e6}
    ours = config_of(tmp_path, rope_parameters=parameters)
    theirs = transformers.LlamaConfig(**LLAMA_31, rope_parameters=dict(parameters))
    assert theirs.rope_parameters["rope_type"] == "llama3"
    assert ours.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


def logits(folder: Path, tokens: np.ndarray, mesh: jax.sharding.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits of ste_jax and of transformers."""
    with jax.set_mesh(mesh):
        model = open_model(folder).load(TRAIN, mesh, param_dtype="float32", dtype="float32")
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        hidden = hidden_states(model, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        ours = np.asarray(model.unembed_hidden(hidden))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return ours, theirs(torch.from_numpy(tokens).long()).logits.numpy()


@pytest.mark.parametrize("case", ["own head", "no embedding", "linear", "dynamic", "mistral", "stale"])
def test_logits_equal_those_of_transformers(
    hf_folder: Make, one_device: jax.sharding.Mesh, case: str
) -> None:
    folder = hf_folder(max_shard_size="20KB" if case == "stale" else "1GB")
    if case == "stale":  # shards of an older model with their index, and the whole newer one
        whole = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        save_file({k: v + 0.1 for k, v in whole.items()}, folder / "model.safetensors")
    if case in ("own head", "no embedding"):
        edit_config(folder, tie_word_embeddings=True)
    if case == "no embedding":
        edit_weights(folder, lambda t: t.pop("model.embed_tokens.weight"))
    if case in ("linear", "dynamic"):
        edit_config(folder, rope_parameters={"rope_type": case, "rope_theta": 1e4, "factor": 4.0})
    if case == "mistral":
        edit_config(folder, model_type=case, architectures=["MistralForCausalLM"], sliding_window=None)
    tokens = np.random.default_rng(0).integers(0, 96, (1, 100)).astype(np.int32)
    ours, theirs = logits(folder, tokens, one_device)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_tied_model_may_hold_its_embeddings_twice(hf_folder: Make) -> None:
    folder = hf_folder()
    edit_config(folder, tie_word_embeddings=True)
    edit_weights(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert open_model(folder).architecture.tie_embeddings
    edit_weights(folder, lambda t: t["lm_head.weight"][95].add_(1.0))
    assert not open_model(folder).architecture.tie_embeddings


def test_heads_of_reward_models_are_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    edit_weights(folder, lambda t: t.update({"score.weight": torch.ones(1, 32)}))
    with raises("model_unsupported", str(folder), "score.weight", "reward model"):
        open_model(folder)


def test_an_adapter_is_refused_and_names_its_model(hf_folder: Make, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/model"}')
    save_file({"lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    with raises("model_unsupported", str(tmp_path), "org/model", "merge_and_unload"):
        open_model(tmp_path)
    folder = hf_folder()
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with raises("model_unsupported", str(tmp_path), "org/model"):
        open_model(tmp_path)


def test_other_safetensors_are_no_part_of_the_model(
    hf_folder: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = hf_folder()
    before = open_model(folder).digest()
    for name in ("adapter_model", "consolidated.00", "copy", "model-00001-of-00009"):
        save_file({"model.norm.weight": torch.ones(32)}, folder / f"{name}.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_model(folder).digest() == before
    assert "consolidated.00.safetensors" in caplog.text


def test_shards_without_an_index_are_read(hf_folder: Make) -> None:
    folder = hf_folder(max_shard_size="20KB")
    (folder / "model.safetensors.index.json").unlink()
    save_file({"model.norm.weight": torch.ones(32)}, folder / "consolidated.safetensors")
    assert len(open_model(folder).weights.files) > 2


def test_more_layers_than_tensors_are_refused_at_once(hf_folder: Make) -> None:
    folder = hf_folder()
    edit_config(folder, num_hidden_layers=2**31 - 1)
    with raises("model_damaged", str(folder), "model.layers.2147483646."):
        open_model(folder)


@pytest.mark.parametrize(
    ("name", "tensor", "code", "places"),
    [
        ("lm_head.weight", None, "model_damaged", ()),
        ("model.layers.1.mlp.up_proj.weight", None, "model_damaged", ()),
        ("model.norm.weight", torch.ones(31), "model_mismatch", ("(31,)", "(32,)")),
        ("model.layers.0.self_attn.q_proj.bias", torch.ones(32), "model_unsupported", ()),
        ("model.norm.weight", torch.ones(32, dtype=torch.int8), "model_unsupported", ("I8",)),
    ],
    ids=["head", "layer", "shape", "bias", "int8"],
)
def test_odd_tensors_are_refused(
    hf_folder: Make, name: str, tensor: torch.Tensor | None, code: str, places: tuple[str, ...]
) -> None:
    folder = hf_folder()
    edit_weights(folder, lambda t: t.pop(name) if tensor is None else t.update({name: tensor}))
    with raises(code, str(folder), name, *places):
        open_model(folder)


def test_more_layers_than_the_config_says_are_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    edit_config(folder, num_hidden_layers=2)
    with raises("model_unsupported", str(folder), "model.layers.2."):
        open_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(hf_folder: Make, keep: int) -> None:
    file = hf_folder() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with raises("model_damaged", str(file)):
        open_model(file.parent)


def test_a_missing_shard_is_named(hf_folder: Make) -> None:
    folder = hf_folder(max_shard_size="20KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with raises("model_damaged", str(shard), "model.safetensors.index.json"):
        open_model(folder)


def test_an_index_cannot_lead_out_of_the_folder(hf_folder: Make) -> None:
    folder = hf_folder()
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with raises("model_damaged", f"{folder}/outside.safetensors"):
        open_model(folder)


def test_a_broken_index_is_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    (folder / "model.safetensors").unlink()
    for index in ('{"weight_map": [1]}', '{"weight_map": {}}', "{}"):
        (folder / "model.safetensors.index.json").write_text(index)
        with raises("model_damaged", "model.safetensors.index.json", "weight_map"):
            open_model(folder)


def test_a_git_lfs_pointer_is_no_weights(hf_folder: Make) -> None:
    folder = hf_folder()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 538090408\n"
    (folder / "model.safetensors").write_text(pointer)
    with raises("model_damaged", "model.safetensors", "git lfs pull"):
        open_model(folder)


def test_a_folder_without_weights_is_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    (folder / "model.safetensors").unlink()
    with raises("model_damaged", str(folder), "model.safetensors"):
        open_model(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with raises("model_damaged", str(folder), ".bin"):
        open_model(folder)


def test_the_same_tensor_in_two_files_is_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    for i in (1, 2):
        shutil.copy(folder / "model.safetensors", folder / f"model-0000{i}-of-00002.safetensors")
    (folder / "model.safetensors").unlink()
    with raises("model_damaged", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        open_model(folder)


def test_a_broken_config_is_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    for text in ("{", "[]", "[" * 100_000, "\udcff"):
        (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
        with raises("data_invalid", f"{folder}/config.json"):
            open_model(folder)
