import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ste_jax import pipeline
from ste_jax.decode.protocol import GREEDY
from ste_jax.pairs.splits import Splits
from ste_jax.records import Judgment
from ste_jax.stages import evaluate
from ste_jax.stages.context import Context
from ste_jax.stages.generation import generate_texts
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import require_success
from ste_jax.text.chat import Message
from tests.errors import raises

MakeContext = Callable[..., Context]


@pytest.mark.parametrize("changes", [{"mesh": (1, 1, 4)}, {"train_mesh": (1, 1, 4)}])
def test_a_mesh_that_does_not_divide_the_model_is_refused_when_it_is_opened(
    make_context: MakeContext, changes: dict
) -> None:
    context = make_context(**changes)  # a model of two key/value heads
    with raises("mesh_invalid", "tensor", "kv_heads"):
        context.seed_model  # noqa: B018
    assert make_context(mesh=(1, -1, 2)).seed_model.architecture.num_kv_heads == 2


@pytest.mark.parametrize(
    "start", [pipeline.run_stages, lambda context: pipeline.run_stage(context, "select", 1)]
)
def test_labelled_pairs_are_read_before_any_stage(
    make_context: MakeContext, tmp_path: Path, start: Callable[[Context], object]
) -> None:
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"instruction": "i", "response_a": "a", "response_b": "b"}\n')
    context = make_context(labelled_pairs=str(labelled))
    with raises("data_invalid", str(labelled)):
        start(context)
    assert not list(Path(context.workdir).iterdir())


@pytest.mark.parametrize(
    ("refused", "changes"),
    [
        ("verdict", {}),  # the judge prompt
        ("sort this request", {"select": {"categories": ("Writing", "Coding")}}),
        ("plainly of lower quality", {"pairs": {"mode": "degraded"}}),
        ("write a new instruction", {"pairs": {"mode": ("truncated", "modified")}}),
    ],
    ids=["judge", "label", "degraded", "modified"],
)
def test_a_template_that_refuses_a_prompt_is_named_before_any_stage(
    make_context: MakeContext, tiny_model: Path, tmp_path: Path, refused: str, changes: dict
) -> None:
    own = (tiny_model / "chat_template.jinja").read_text()
    condition = f"{refused!r} in messages | map(attribute='content') | join | lower"
    file = tmp_path / "template.jinja"
    file.write_text(f"{{% if {condition} %}}{{{{ raise_exception('unspeakable') }}}}{{% endif %}}{own}")
    context = make_context(chat_template=str(file), **changes)
    with raises("chat_invalid", str(file), "unspeakable", "--chat_template=FILE"):
        pipeline.run_stage(context, "select", 1) if changes else pipeline.run_stages(context)
    assert not list(Path(context.workdir).iterdir())


def test_a_chat_template_and_a_date_make_stages_stale_by_content(
    make_context: MakeContext, tmp_path: Path
) -> None:
    def fingerprint(**changes: str) -> dict:
        return make_context(**changes).fingerprint("pairs", model="m")

    one, other = tmp_path / "one.jinja", tmp_path / "other.jinja"
    one.write_text("{{ messages[0].content }}")
    other.write_text(one.read_text())
    plain, given = fingerprint(), fingerprint(chat_template=str(one))
    assert given == fingerprint(chat_template=str(other))
    other.write_text("{{ messages[0].content }}!")
    seen = [plain, given, fingerprint(chat_template=str(other)), fingerprint(chat_date="2020-01-01")]
    assert all(seen.count(value) == 1 for value in seen)
    with raises("argument_invalid", "chat_date", "yesterday"):
        make_context(chat_date="yesterday")


def test_the_model_of_an_iteration_that_was_not_trained(make_context: MakeContext) -> None:
    with raises("stage_unfinished", "iteration_1", "ste train --iteration=1"):
        make_context().model(1)


def test_an_evaluation_of_other_pairs_is_stale(make_context: MakeContext) -> None:
    context = make_context()
    fingerprint = context.fingerprint("evaluate", pairs="those of another seed")
    RecordSet(context.iteration(0) / "evaluate", Judgment, fingerprint).finish([], {"too_long": []})
    with raises("stage_stale", "--redo=iteration_0/evaluate"):
        evaluate.finished(context, 0, Splits([], [], [], []))


def test_conversations_that_the_template_refuses_are_left_out_and_listed(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()
    tokenizer, folder = context.seed_model.tokenizer, context.workdir / "texts"
    refusal = "{% if 'UNSPEAKABLE' in messages[-1].content %}{{ raise_exception('refused') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusal + tokenizer.chat_template)
    texts = {"bad": "UNSPEAKABLE", "long": "word " * 5000, "good": "Name a river."}
    conversations = {id_: [Message("user", text)] for id_, text in texts.items()}
    options = {"sampling": GREEDY, "max_new_tokens": 2, "fingerprint": {}}
    answers, too_long = generate_texts(context, context.seed_model, folder, conversations, **options)
    assert (list(answers), too_long) == (["good"], ["long"])
    assert require_success(folder).summary == {"too_long": ["long"], "chat_invalid": ["bad"]}


@pytest.mark.parametrize(
    ("library", "changes"),
    [
        ("lingua", {"select": {"filters": {"languages": ("en",), "personal_data": "keep"}}}),
        ("phonenumbers", {"select": {"filters": {"languages": (), "personal_data": "drop"}}}),
        ("sklearn", {"pairs": {"mode": "nearest"}}),
    ],
)
def test_a_library_that_a_later_stage_needs_is_missed_at_the_start(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, library: str, changes: dict
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    context = make_context(**changes)
    with raises("extra_missing", library, "ste-jax[select]"):
        pipeline.run_stages(context)
    assert not list(Path(context.workdir).iterdir())
