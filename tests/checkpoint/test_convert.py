import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from ste_jax.checkpoint import export, folder
from ste_jax.checkpoint.export import export_model
from ste_jax.checkpoint.folder import PartialModelFolder, import_model, save_model, update_card
from ste_jax.checkpoint.source import open_model
from ste_jax.judging.prompts import load_prompt
from ste_jax.judging.verdict import PARSER
from ste_jax.models.llama import hidden_states
from ste_jax.models.rope import RopeScaling
from ste_jax.sharding import TRAIN, make_mesh
from tests.errors import raises
from tests.pods import Pod, python, same

Make = Callable[..., Path]
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture
def theirs(hf_folder: Make, tokenizer_folder: Make) -> Make:
    """A Hugging Face folder with a tokenizer, in shards."""

    def make(**fields: object) -> Path:
        made = hf_folder(**{"max_shard_size": "40KB", "vocab_size": 272, "rope_parameters": ROPE, **fields})
        shutil.copytree(tokenizer_folder(), made, dirs_exist_ok=True)
        return made

    return make


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def their_logits(folder: Path, ids: list[int]) -> np.ndarray:
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def our_logits(folder: Path, ids: list[int]) -> np.ndarray:
    mesh = make_mesh((1, 1, 1))
    with jax.set_mesh(mesh):
        model = open_model(folder).load(TRAIN, mesh, param_dtype="float32", dtype="float32")
        tokens = jnp.array([ids], jnp.int32)
        positions = jnp.arange(len(ids), dtype=jnp.int32)[None]
        hidden = hidden_states(model, tokens, positions, jnp.ones_like(tokens))
        return np.asarray(model.unembed_hidden(hidden))[0]


@pytest.mark.parametrize(
    ("tied", "dtype"), [(True, torch.bfloat16), (False, torch.float32), (False, torch.float16)]
)
def test_there_and_back_not_a_bit_is_lost(
    theirs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool, dtype: torch.dtype
) -> None:
    source = theirs(tie_word_embeddings=tied, dtype=dtype)
    assert len(list(source.glob("*.safetensors"))) > 1
    monkeypatch.setattr(export, "_SHARD_BYTES", 40_000)
    assert import_model(open_model(source), tmp_path / "ours", make_mesh((1, 2, 2)))
    assert export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    before, after = tensors_of(source), tensors_of(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == dtype
        assert torch.equal(after[name], tensor), name
    assert open_model(tmp_path / "back").architecture == open_model(source).architecture
    assert open_model(source).architecture.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 32)
    ids = list(np.random.default_rng(0).integers(3, 259, 60))
    assert np.array_equal(their_logits(tmp_path / "back", ids), their_logits(source, ids))
    np.testing.assert_allclose(
        our_logits(tmp_path / "ours", ids), their_logits(source, ids), rtol=2e-4, atol=2e-4
    )
    # And in again: the card went along.
    assert import_model(open_model(tmp_path / "back"), tmp_path / "again", make_mesh((1, 1, 1)))
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "ours" / "model.json").read_text()


def test_a_small_model_is_one_file_that_transformers_loads(theirs: Make, tmp_path: Path) -> None:
    import_model(open_model(theirs(rope_parameters=None)), tmp_path / "ours", make_mesh((1, 1, 1)))
    export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    assert [f.name for f in (tmp_path / "back").glob("model*.safetensors*")] == ["model.safetensors"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert model.generation_config.eos_token_id == list(open_model(tmp_path / "ours").tokenizer.stop_ids)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert tokenizer.decode(tokenizer("Grüße")["input_ids"]) == "Grüße"
    assert tokenizer.chat_template


def test_a_judge_keeps_its_prompt_parser_and_stop_ids(theirs: Make, tmp_path: Path) -> None:
    import_model(open_model(theirs()), tmp_path / "seed", make_mesh((1, 1, 1)))
    seed = open_model(tmp_path / "seed")
    model = seed.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
    prompt = load_prompt("standard", "")
    assert seed.card is not None
    settings = {"max_new_tokens": 300, "force_verdict": True, "dtype": "bfloat16"}
    card = dataclasses.replace(
        seed.card, judge_prompt=prompt.to_json(), parser=PARSER, parent=seed.digest(), **settings
    )
    save_model(tmp_path / "judge", model, card, seed.tokenizer, "bfloat16")
    export_model(open_model(tmp_path / "judge"), tmp_path / "out")
    out = open_model(tmp_path / "out")
    assert out.card == open_model(tmp_path / "judge").card
    assert out.card is not None
    assert (out.card.judge_prompt, out.card.parser) == (prompt.to_json(), PARSER)
    assert {name: getattr(out.card, name) for name in settings} == settings
    assert out.card.stop_ids == seed.tokenizer.stop_ids
    assert out.digest() == open_model(tmp_path / "judge").digest() != seed.digest()
    assert all(str(dtype) == "bfloat16" for dtype in out.dtypes.values())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_an_export_takes_up_a_later_calibration(theirs: Make, tmp_path: Path) -> None:
    import_model(open_model(theirs()), tmp_path / "ours", make_mesh((1, 1, 1)))
    assert export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    update_card(tmp_path / "ours", calibration={"temperature": 2.0})
    shards = {f: f.stat().st_mtime_ns for f in (tmp_path / "back").glob("*.safetensors")}
    assert export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    assert open_model(tmp_path / "back").card == open_model(tmp_path / "ours").card
    assert {f: f.stat().st_mtime_ns for f in shards} == shards, "the weights are not written again"
    assert not export_model(open_model(tmp_path / "ours"), tmp_path / "back")


def test_weights_that_were_changed_elsewhere_do_not_keep_the_card(theirs: Make, tmp_path: Path) -> None:
    import_model(open_model(theirs()), tmp_path / "ours", make_mesh((1, 1, 1)))
    export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    file = tmp_path / "back" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with raises("model_mismatch", str(tmp_path / "back"), "model.json"):
        import_model(open_model(tmp_path / "back"), tmp_path / "again", make_mesh((1, 1, 1)))
    assert not (tmp_path / "again").exists()


class Killed(BaseException):
    pass


def test_an_import_goes_on_where_it_was_killed(
    theirs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_model(theirs())
    save, written = folder.save_parameter, []

    def dies_at_the_fifth(path: Path, name: str, array: jax.Array) -> None:
        written.append(name)
        if len(written) == 5:
            (path / name).mkdir()  # half of it
            raise Killed
        save(path, name, array)

    monkeypatch.setattr(folder, "save_parameter", dies_at_the_fifth)
    with pytest.raises(Killed):
        import_model(source, tmp_path / "ours", make_mesh((1, 1, 1)))
    assert not (tmp_path / "ours").exists()
    first, written[:] = list(written), [*range(5)]
    assert import_model(source, tmp_path / "ours", make_mesh((1, 1, 1)))
    assert written[5:] == list(source.dtypes)[4:]
    assert first == list(source.dtypes)[:5]
    assert not import_model(source, tmp_path / "ours", make_mesh((1, 1, 1)))
    whole = open_model(tmp_path / "ours")
    import_model(source, tmp_path / "at_once", make_mesh((1, 1, 1)))
    assert whole.digest() == open_model(tmp_path / "at_once").digest()
    whole.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")


def test_an_export_goes_on_where_it_was_killed(
    theirs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_SHARD_BYTES", 40_000)
    import_model(open_model(theirs()), tmp_path / "ours", make_mesh((1, 1, 1)))
    write, written = export._write_safetensors, []

    def dies_at_the_third(path: Path, *rest: object) -> None:
        written.append(path.name)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise Killed
        write(path, *rest)

    monkeypatch.setattr(export, "_write_safetensors", dies_at_the_third)
    with pytest.raises(Killed):
        export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    killed_in = written[2]
    assert export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    assert written[3] == killed_in
    assert not export_model(open_model(tmp_path / "ours"), tmp_path / "back")
    export_model(open_model(tmp_path / "ours"), tmp_path / "at_once")
    for file in (tmp_path / "at_once").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "back" / file.name).read_bytes()


def test_a_folder_has_one_writer(theirs: Make, tmp_path: Path) -> None:
    origin = open_model(theirs()).origin()
    first = PartialModelFolder(tmp_path / "m", origin)
    first.record("embed", "hash")
    for other in (origin, "another model", ""):
        with raises("output_locked", str(tmp_path / "m")):
            PartialModelFolder(tmp_path / "m", other)
    assert first.path.exists()
    first.close()
    assert PartialModelFolder(tmp_path / "m", origin).written == {"embed": "hash"}


def test_another_model_is_not_written_over_a_conversion(theirs: Make, tmp_path: Path) -> None:
    source = open_model(theirs())
    import_model(source, tmp_path / "ours", make_mesh((1, 1, 1)))
    with raises("folder_in_use", str(tmp_path / "ours")):
        import_model(source, tmp_path / "ours", make_mesh((1, 1, 1)), "bfloat16")
    with raises("folder_in_use", str(tmp_path / "ours")):
        export_model(open_model(tmp_path / "ours"), tmp_path / "ours")
    with raises("model_unsupported", str(source.path)):
        export_model(source, tmp_path / "back")


def test_the_command(ste: Any, tiny_model: Path, tmp_path: Path) -> None:
    process = ste.start("convert", str(tiny_model), str(tmp_path / "out"))
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, f"{tmp_path / 'out'}: written\n"), err
    assert (
        open_model(tmp_path / "out").tokenizer.fingerprint() == open_model(tiny_model).tokenizer.fingerprint()
    )


FROM_THE_HUB = """
import shutil, sys
from pathlib import Path
import huggingface_hub
from absl import flags
from ste_jax.commands import convert

files, folder = sys.argv[1:]

def snapshot_download(name, allow_patterns, local_dir):
    print("DOWNLOAD", name)
    return shutil.copytree(files, local_dir, dirs_exist_ok=True)

huggingface_hub.snapshot_download = snapshot_download
flags.FLAGS(["ste"])
convert.main(["ste", "convert", "someone/tiny", folder])
"""


def test_two_hosts_download_a_hub_model_once(theirs: Make, tmp_path: Path) -> None:
    files, folder = theirs(), tmp_path / "shared" / "model"
    with Pod(python(FROM_THE_HUB, str(files), str(folder)), workers=2, devices=1) as pod:
        ends = pod.ends()
    same(ends, 0)
    assert sum(end.out.count("DOWNLOAD someone/tiny") for end in ends) == 1
    assert open_model(folder).load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
