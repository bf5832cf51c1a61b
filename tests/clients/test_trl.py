"""A judge as the reward of one real GRPO step of TRL on CPU; bash scripts/clients_trl.sh runs it."""

from pathlib import Path

import pytest

from ste_jax.checkpoint.export import export_model
from ste_jax.checkpoint.source import open_model
from tests.judges import load_judge

pytestmark = pytest.mark.clients

ROWS = [
    {"prompt": "Name the capital of France.", "answer": "The capital of France is Paris."},
    {"prompt": "What is two plus two?", "answer": "Two plus two is four."},
]


@pytest.fixture
def policy(tiny_model: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder with a random model of two layers."""
    folder = tmp_path / "policy"
    export_model(open_model(tiny_model), folder)
    return folder


@pytest.mark.parametrize("conversational", [False, True])
def test_one_grpo_step(smollm2_path: Path, policy: Path, tmp_path: Path, conversational: bool):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    def turns(text):
        return [{"role": "user", "content": text}] if conversational else text

    judge = load_judge(smollm2_path)
    against, group = judge.reward_function(baseline="answer"), judge.reward_function(on_abstain=0.5)
    seen = []

    def recorded(prompts, completions, **columns):
        rewards = against(prompts, completions, **columns)
        seen.append((prompts, completions, columns["answer"], rewards))
        return rewards

    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = GRPOTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(policy),
        reward_funcs=[recorded, group],
        train_dataset=Dataset.from_list([row | {"prompt": turns(row["prompt"])} for row in ROWS]),
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=12,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
    )
    trainer.train()
    log = trainer.state.log_history[0]
    ((prompts, completions, answers, rewards),) = seen
    assert len(rewards) == len(completions) == 8
    assert all(0.0 < reward < 1.0 for reward in rewards)
    assert len(set(rewards)) > 1
    assert log["rewards/recorded/mean"] == pytest.approx(sum(rewards) / 8, abs=1e-5)
    assert log["rewards/judge_within_group/mean"] == pytest.approx(0.5, abs=1e-5)
    assert log["judge_within_group/abstained"] == 0.0
    assert log["reward_std"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    # The same numbers from the judge itself.
    pairs = [
        {"instruction": prompt, "response_a": completion, "response_b": answer}
        for prompt, completion, answer in zip(prompts, completions, answers, strict=True)
    ]
    if not conversational:
        assert [result.probability_a for result in judge.compare_many(pairs)] == rewards
