import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.fingerprint import fingerprint
from ste_jax.checkpoint.folder import save_model, update_card
from ste_jax.checkpoint.source import open_model
from ste_jax.distributed import process
from ste_jax.distributed.preemption import StopRequested
from ste_jax.models.llama import Llama, LlamaConfig, parameter_table
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.text.chat import Message, encode_chat
from ste_jax.text.template import ChatSettings
from ste_jax.text.tokenizer import Tokenizer, load_tokenizer
from tests.errors import raises

Make = Callable[..., Path]
CFG = LlamaConfig(
    vocab_size=272,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=64,
)
CARD = ModelCard("judge", CFG, "", (1,), parent="0" * 64, judge_prompt={"name": "n"}, parser="last")


def random_model(seed: int = 0, dtype: str = "float32", mesh: jax.sharding.Mesh | None = None) -> Llama:
    random = np.random.default_rng(seed)
    mesh = mesh or make_mesh((1, 1, 1))
    arrays = {}
    for name, p in parameter_table(CFG).items():
        sharding = jax.NamedSharding(mesh, TRAIN.spec(*p.axes))
        arrays[name] = jax.device_put(random.normal(size=p.shape).astype(jnp.dtype(dtype)), sharding)
    return Llama(CFG, TRAIN, "float32", arrays)


def parameters(model: Llama) -> dict[str, jax.Array]:
    return {name: model.parameter(name) for name in parameter_table(model.cfg)}


@pytest.fixture
def tokenizer(tokenizer_folder: Make) -> Tokenizer:
    return load_tokenizer(tokenizer_folder())


@pytest.fixture
def own(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "own", random_model(), CARD, tokenizer)
    return tmp_path / "own"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_comes_back(tmp_path: Path, tokenizer: Tokenizer, dtype: str) -> None:
    model = random_model(dtype=dtype)
    written = save_model(tmp_path / "own", model, CARD, tokenizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own", "tokenizer"]
    source = open_model(tmp_path / "own")
    assert source.card == written
    assert (source.name, source.architecture) == ("judge", CFG)
    assert source.digest() == written.weights_hash == fingerprint(parameters(model))
    assert source.tokenizer.fingerprint() == written.tokenizer_hash == tokenizer.fingerprint()
    assert source.tokenizer.stop_ids == tokenizer.stop_ids
    loaded = source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype=dtype, dtype="float32")
    for (path, ours), other in zip(
        jax.tree_util.tree_leaves_with_path(loaded), jax.tree.leaves(model), strict=True
    ):
        assert ours.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(ours, other, err_msg=str(path))


def test_other_dtypes_are_cast(own: Path) -> None:
    loaded = open_model(own).load(TRAIN, make_mesh((1, 1, 1)), param_dtype="bfloat16", dtype="bfloat16")
    for ours, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(random_model()), strict=True):
        np.testing.assert_array_equal(ours, other.astype(jnp.bfloat16))


def test_saved_on_one_mesh_loaded_on_another(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = random_model(mesh=make_mesh((1, 4, 2)))
    card = save_model(tmp_path / "own", model, CARD, tokenizer)
    mesh = make_mesh((1, 2, 4))
    loaded = open_model(tmp_path / "own").load(TRAIN, mesh, param_dtype="float32", dtype="float32")
    gate = loaded.blocks.w_gate[...]
    assert gate.sharding == jax.NamedSharding(mesh, TRAIN.spec(None, "embed", "mlp"))
    np.testing.assert_array_equal(gate, model.blocks.w_gate[...])
    assert fingerprint(parameters(random_model())) == card.weights_hash


def test_fingerprint_sees_every_change() -> None:
    base = {name: np.array(array) for name, array in parameters(random_model()).items()}
    seen = {fingerprint(jax.device_put(base))}
    wq, w_up = base["blocks.wq"], base["blocks.w_up"]
    one_bit = wq.copy()
    one_bit[1, 2, 3, 0, 4] = np.nextafter(wq[1, 2, 3, 0, 4], np.float32(9))
    changes = {
        "one bit": base | {"blocks.wq": one_bit},
        "two rows": base | {"blocks.w_up": w_up[:, [0, 1, 3, 2, *range(4, 32)]]},
        "two layers": base | {"blocks.w_up": w_up[::-1]},
        "two names": base | {"blocks.w_up": base["blocks.w_gate"], "blocks.w_gate": w_up},
        "sign of zero": base | {"final_norm": np.zeros(32, np.float32)},
        "sign of another zero": base | {"final_norm": -np.zeros(32, np.float32)},
        "dtype": base | {"blocks.wq": wq.astype(jnp.bfloat16)},
    }
    for name, arrays in changes.items():
        digest = fingerprint(jax.device_put(arrays))
        assert digest not in seen, name
        seen.add(digest)


def test_saving_again_replaces_the_model(own: Path, tokenizer: Tokenizer) -> None:
    # What a killed run left next to it does not stop the next one.
    (own.parent / "own.partial" / "parameters").mkdir(parents=True)
    save_model(own, random_model(seed=1), dataclasses.replace(CARD, name="second"), tokenizer)
    source = open_model(own)
    assert source.name == "second"
    loaded = source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
    np.testing.assert_array_equal(loaded.embed[...], random_model(seed=1).embed[...])
    assert sorted(p.name for p in own.parent.iterdir()) == ["own", "tokenizer"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any

from ste_jax.checkpoint.folder import PartialModelFolder
from ste_jax.checkpoint.source import open_model


def kill_when_the_card_is_gone(event, arguments):
    if event == "shutil.rmtree":
        Path(arguments[0], "model.json").unlink()
        os.kill(os.getpid(), signal.SIGKILL)


source = open_model(sys.argv[1])
partial_folder = PartialModelFolder(sys.argv[1])
sys.addaudithook(kill_when_the_card_is_gone)
partial_folder.finish(source.card, source.tokenizer)
"""


def test_a_kill_while_the_old_model_is_deleted(own: Path, tokenizer: Tokenizer) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(own)], capture_output=True, timeout=100)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    save_model(own, random_model(seed=1), dataclasses.replace(CARD, name="second"), tokenizer)
    assert open_model(own).name == "second"
    assert sorted(p.name for p in own.parent.iterdir()) == ["own", "tokenizer"]


def test_saving_over_something_else_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with raises("folder_in_use", str(tmp_path / "notes")):
        save_model(tmp_path / "notes", random_model(), CARD, tokenizer)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_tokenizer(own)

    def full_disk(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(other, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(own, random_model(seed=1), dataclasses.replace(CARD, name="second"), other)
    assert open_model(own).name == "judge"


def test_foreign_models_are_opened_with_their_tokenizer(hf_folder: Make, tokenizer_folder: Make) -> None:
    folder = hf_folder(vocab_size=272)
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    source = open_model(str(folder))
    assert (source.path, source.name, source.card) == (folder, "hf_model", None)
    # 259 ids of 272: padded embeddings are common.
    assert source.tokenizer.vocab_size == 259
    assert source.tokenizer.decode(source.tokenizer.encode_plain("Grüße")) == "Grüße"


def test_foreign_files_are_hashed_once_per_process(hf_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = hf_folder(max_shard_size="20KB"), []
    file_digest = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        read.append(Path(file.name))
        return file_digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    first = open_model(folder).digest()
    files = sorted(folder.glob("*.safetensors"))
    assert sorted(read) == files
    assert len(files) > 1
    assert open_model(folder).digest() == first
    assert len(read) == len(files)
    raw = bytearray(files[0].read_bytes())
    raw[-1] ^= 1
    files[0].write_bytes(raw)
    assert open_model(folder).digest() != first
    assert read[len(files) :] == [files[0]]


def test_a_save_that_is_stopped_leaves_the_older_model(own: Path, tokenizer: Tokenizer) -> None:
    calls = iter([False, False, True])
    with pytest.raises(StopRequested):
        save_model(own, random_model(seed=1), CARD, tokenizer, stop_requested=lambda: next(calls))
    open_model(own).load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
    second = dataclasses.replace(CARD, name="second")
    save_model(own, random_model(seed=1), second, tokenizer, stop_requested=lambda: False)
    assert open_model(own).name == "second"


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(hf_folder: Make, tokenizer_folder: Make) -> None:
    folder = hf_folder(vocab_size=258)
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    with raises("model_mismatch", str(folder), "259", "258"):
        _ = open_model(folder).tokenizer


@pytest.mark.parametrize("special", [True, False])
def test_an_added_token_that_nothing_writes_need_not_be_embedded(
    hf_folder: Make, tokenizer_folder: Make, special: bool
) -> None:
    folder = hf_folder(vocab_size=259)
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    plain = open_model(folder).tokenizer.encode_plain("a [PAD] b")
    add_token(folder, "[PAD]", 259, special)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "[PAD]"}))
    tokenizer = open_model(folder).tokenizer
    assert tokenizer.encode_plain("a [PAD] b") == plain
    assert max(encode_chat(tokenizer, [Message("user", "[PAD]")])) < 259
    template = tokenizer.chat_template
    for written in ("{{ pad_token }}", "[PAD]"):
        (folder / "chat_template.jinja").write_text(template + written)
        with raises("model_mismatch", str(folder), "[PAD]"):
            _ = open_model(folder).tokenizer
    (folder / "chat_template.jinja").write_text(template)
    (folder / "generation_config.json").write_text('{"eos_token_id": 259}')
    with raises("model_mismatch", str(folder), "[PAD]"):
        _ = open_model(folder).tokenizer


def add_token(folder: Path, name: str, id_: int, special: bool) -> None:
    value = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": id_, "content": name, "special": special, "normalized": False}
    value["added_tokens"].append(token | dict.fromkeys(("single_word", "lstrip", "rstrip"), False))
    (folder / "tokenizer.json").write_text(json.dumps(value))


def test_a_chat_template_of_a_model_with_a_card(own: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}<turn>{{ m.content }}<eos>{% endfor %}")
    chat = ChatSettings(template=str(file))
    converted = dataclasses.replace(CARD, judge_prompt=None, parser=None)
    save_model(tmp_path / "converted", random_model(), converted, tokenizer)
    assert open_model(tmp_path / "converted", chat).tokenizer.chat_template == file.read_text()
    same = ChatSettings(date="2024-07-26")
    assert open_model(own, same).tokenizer.fingerprint() == tokenizer.fingerprint()
    with raises("untrained_prompt", str(own), "chat_template"):
        _ = open_model(own, chat).tokenizer


def test_a_folder_without_tokenizer_is_refused(hf_folder: Make) -> None:
    folder = hf_folder()
    with raises("tokenizer_invalid", str(folder), "tokenizer.json"):
        _ = open_model(folder).tokenizer


def test_an_exchanged_tokenizer_is_refused(own: Path, tokenizer_folder: Make) -> None:
    shutil.copytree(tokenizer_folder("other", extra=("<tool>",)), own, dirs_exist_ok=True)
    with raises("model_mismatch", str(own), "model.json"):
        _ = open_model(own).tokenizer


def test_exchanged_weights_are_refused(own: Path, tokenizer: Tokenizer) -> None:
    save_model(own.parent / "other", random_model(seed=1), CARD, tokenizer)
    shutil.rmtree(own / "parameters")
    (own.parent / "other" / "parameters").rename(own / "parameters")
    source = open_model(own)
    with raises("model_mismatch", str(own), "model.json"):
        source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")


def test_weights_that_are_not_finite_are_refused(hf_folder: Make, tokenizer_folder: Make) -> None:
    from safetensors.numpy import load_file, save_file

    folder = hf_folder(vocab_size=272)
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    file = folder / "model.safetensors"
    save_file({name: np.full_like(value, np.nan) for name, value in load_file(file).items()}, file)
    with raises("model_damaged", str(folder), "not finite"):
        open_model(folder).load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")


def test_missing_and_half_written_weights_are_refused(own: Path) -> None:
    (own / "parameters" / "embed" / "commit_success.txt").unlink()
    with raises("model_damaged", str(own / "parameters")):
        open_model(own)
    shutil.rmtree(own / "parameters")
    with raises("model_damaged", str(own / "parameters")):
        open_model(own)


def test_a_card_of_another_architecture_is_refused(own: Path) -> None:
    card = json.loads((own / "model.json").read_text())
    card["architecture"]["intermediate_size"] = 128
    (own / "model.json").write_text(json.dumps(card))
    with raises("model_mismatch", str(own), "blocks.w_gate", "(2, 32, 64)", "(2, 32, 128)"):
        open_model(own)


def test_a_folder_with_a_card_of_version_1_is_opened(own: Path) -> None:
    card = json.loads((own / "model.json").read_text())
    first = json.loads((Path(__file__).parent / "data" / "card_version_1.json").read_text())
    (own / "model.json").write_text(json.dumps({name: card[name] for name in first}))
    source = open_model(own)
    assert source.card is not None
    assert (source.card.name, source.card.dtype) == ("judge", None)
    source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")


def test_a_card_of_a_newer_version_is_refused(own: Path) -> None:
    card = json.loads((own / "model.json").read_text())
    (own / "model.json").write_text(json.dumps(card | {"schema_version": 99}))
    with raises("schema_newer", f"{own}/model.json", "99"):
        open_model(own)


def test_update_card_keeps_the_folder_valid(own: Path) -> None:
    before = open_model(own).card
    fitted = {"temperature": 1.7, "threshold": 0.8}
    written = update_card(own, calibration=fitted, max_new_tokens=64)
    source = open_model(own)
    assert before is not None
    assert source.card == written == dataclasses.replace(before, calibration=fitted, max_new_tokens=64)
    assert source.tokenizer.fingerprint() == before.tokenizer_hash
    source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="float32", dtype="float32")
    assert sorted(f.name for f in own.iterdir() if f.name.startswith(".")) == []


def test_update_card_refuses_what_belongs_to_the_weights(own: Path, tmp_path: Path) -> None:
    text = (own / "model.json").read_text()
    for changes in ({"weights_hash": "0" * 64}, {"architecture": CFG}, {"stop_ids": (2,)}, {"colour": "red"}):
        with raises("card_invalid", str(own), *changes):
            update_card(own, **changes)
    with raises("card_invalid", "calibration"):
        update_card(own, calibration=1.5)
    assert (own / "model.json").read_text() == text


def test_a_broken_card_is_refused(own: Path) -> None:
    (own / "model.json").write_text('{"name": "x"')
    with raises("data_invalid", f"{own}/model.json"):
        open_model(own)
    (own / "model.json").write_text('{"name": "x"}')
    with raises("card_invalid", f"{own}/model.json", "'architecture'"):
        open_model(own)


def test_a_mesh_that_does_not_fit_is_refused_before_reading(own: Path) -> None:
    with raises("mesh_invalid", "blocks.wq", "'kv_heads'"):
        open_model(own).load(TRAIN, make_mesh((1, 1, 8)), param_dtype="float32", dtype="float32")


@pytest.mark.parametrize("source", ["/nowhere/at/all", "nothing", "./a/b", "a/b/c"])
def test_nothing_there_and_no_hub_name(source: str) -> None:
    with raises("file_not_found", source):
        open_model(source)


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("models/judge.gguf", "runs/mine", "../mine"):
        with raises("file_not_found", source):
            open_model(source)


def test_a_model_in_the_home_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own.parent))
    assert open_model("~/own").path == own


def test_a_hub_name_that_cannot_be_had() -> None:
    with raises("download_failed", "ste-jax/no-such-model"):
        open_model("ste-jax/no-such-model")


def test_many_hosts_download_no_hub_model_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_process", process._Process(index=1, count=4))
    with raises("hub_name_on_many_hosts", "ste-jax/no-such-model", "ste convert"):
        open_model("ste-jax/no-such-model")


def test_a_hub_name_is_taken_from_the_local_cache(
    hf_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    revision = "0" * 40
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(hf_folder(), repository / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    source = open_model("someone/tiny")
    assert source.name == "tiny"
    assert source.path == repository / "snapshots" / revision


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with raises("model_not_found", str(tmp_path)):
        open_model(tmp_path)
