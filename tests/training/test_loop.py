import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.checkpoint.orbax import TrainCheckpoints, on_mesh
from ste_jax.distributed import monitor
from ste_jax.distributed.preemption import StopRequested
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.loop import DivergedError, checkpointed, train
from ste_jax.training.lora import adapter_table, add_lora
from ste_jax.training.metrics import MetricsLog, read_metrics
from ste_jax.training.step import abstract_state
from tests.errors import raises
from tests.training.training_cases import TINY, examples, one_device, settings, tiny_model


@dataclasses.dataclass
class Counter:
    tokens: int = 0

    def advance(self, records=0, tokens=0):
        self.tokens += tokens


# One setting for most tests: a step compiles once per setting. An epoch has 3 steps.
USUAL = settings(epochs=4, evaluate_every=2, checkpoint_every=3)


class KilledError(Exception):
    """Simulates a process that dies between two steps."""


def run(folder, chosen, *, mesh=None, given=None, evaluate=None, load=tiny_model, best=None, progress=None):
    mesh = mesh or one_device()
    batches = Batches(given or examples(40), chosen, 0, 1)
    checkpoints = TrainCheckpoints(folder / "checkpoints", keep=chosen.keep_checkpoints)
    with contextlib.closing(checkpoints), contextlib.closing(MetricsLog(folder / "metrics")) as metrics:
        return train(
            lambda: load(mesh),
            TINY,
            batches,
            chosen,
            rules=TRAIN,
            mesh=mesh,
            checkpoints=checkpoints,
            evaluate=evaluate,
            save_best=lambda model, step: None if best is None else best.append((step, arrays(model))),
            metrics=metrics,
            progress=progress or Counter(),
        )


def arrays(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def final_state(folder, chosen, total, mesh=None):
    mesh = mesh or one_device()
    with contextlib.closing(TrainCheckpoints(folder / "checkpoints", keep=1)) as checkpoints:
        with jax.set_mesh(mesh):
            shapes = checkpointed(on_mesh(abstract_state(TINY, TRAIN, chosen, total), mesh))
        state, meta = checkpoints.restore(checkpoints.latest_step(), shapes)
    return arrays(state), meta


def lines(folder):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(folder / "metrics")]


def accuracy(model, step):
    """A value that depends on the parameters and rises and falls."""
    return float(np.sin(40.0 * np.asarray(model.embed[...]).sum()))


def accuracy_of_merged(model, step):
    return float(np.sin(40.0 * np.asarray(model.parameter("blocks.w_up")).sum()))


def raising(error, step, value=accuracy):
    def evaluate(model, at):
        if at == step:
            raise error
        return value(model, at)

    return evaluate


def dying_at(step, value=accuracy):
    return raising(KilledError, step, value)


def test_a_tiny_run_overfits(tmp_path):
    given = examples(12)
    chosen = settings(epochs=60, learning_rate=2e-2, batch_rows=2, micro_rows=1, row_length=128)
    progress = Counter()
    result = run(tmp_path, chosen, given=given, progress=progress)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert losses[0] > 3.5
    assert result.loss == losses[-1] < 0.3
    assert result.steps == len(losses)
    assert progress.tokens == 60 * sum(len(e.prompt + e.target) for e in given)


def test_kill_and_resume_equals_the_uninterrupted_run(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    kept: list = []
    expected = run(straight, USUAL, evaluate=accuracy, best=kept)
    kept_again: list = []
    with pytest.raises(KilledError):
        run(broken, USUAL, evaluate=dying_at(4), best=kept_again)
    assert len(lines(broken)) > 3, "the dead run had logged beyond its checkpoint"
    result = run(broken, USUAL, evaluate=accuracy, best=kept_again)
    assert (expected.resumed_from, result.resumed_from) == (None, 3)
    assert dataclasses.replace(result, resumed_from=None) == expected
    assert lines(broken) == lines(straight)
    one, meta = final_state(straight, USUAL, result.steps)
    other, meta_again = final_state(broken, USUAL, result.steps)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert meta == meta_again
    assert kept[-1][0] == kept_again[-1][0] == result.best_step
    for a, b in zip(kept[-1][1], kept_again[-1][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_resuming_on_more_devices_equals_to_float_tolerance(tmp_path):
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    run(straight, USUAL)
    with pytest.raises(KilledError):
        run(moved, USUAL, evaluate=dying_at(4))
    result = run(moved, USUAL, mesh=make_mesh((2, 2, 2)))
    assert result.resumed_from == 3
    there, here = ([line["loss"] for line in lines(folder) if "loss" in line] for folder in (moved, straight))
    assert there == pytest.approx(here, rel=1e-4)
    assert there[:3] == here[:3]
    assert result.loss == there[-1]


@pytest.mark.parametrize("at", [2, 4, 12])
def test_a_stop_during_an_evaluation_saves_the_step_and_evaluates_it_on_resume(tmp_path, at):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    kept: list = []
    expected = run(straight, USUAL, evaluate=accuracy, best=kept)
    kept_again: list = []
    for _ in range(2):  # the evaluation on resume may be stopped too
        with pytest.raises(StopRequested):
            run(stopped, USUAL, evaluate=raising(StopRequested, at), best=kept_again)
        assert lines(stopped)[-1]["step"] == at
        assert "evaluation" not in lines(stopped)[-1]
    result = run(stopped, USUAL, evaluate=accuracy, best=kept_again)
    assert dataclasses.replace(result, resumed_from=None, loss=expected.loss) == expected
    assert result.resumed_from == at
    assert lines(stopped) == lines(straight)
    assert kept_again[-1][0] == kept[-1][0] == result.best_step
    for a, b in zip(kept[-1][1], kept_again[-1][1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("at", [4, 12])
def test_a_stop_during_a_checkpoint_leaves_the_best_model_to_the_next_start(tmp_path, monkeypatch, at):
    """A second save, of the model, could outlast the time that a preempted machine is given."""
    values = {2: 0.1, 3: 0.1, 4: 0.9, 6: 0.1, 8: 0.1, 9: 0.1, 10: 0.1, 12: 0.1 if at == 4 else 0.95}
    kept: list = []
    requested = False
    save = TrainCheckpoints.save

    def interrupted(self, step, state, meta):
        nonlocal requested
        save(self, step, state, meta)
        requested = step == at

    monkeypatch.setattr(monitor, "stop_requested_anywhere", lambda mesh: requested)
    monkeypatch.setattr(TrainCheckpoints, "save", interrupted)
    with pytest.raises(StopRequested):
        run(tmp_path, USUAL, evaluate=lambda model, step: values[step], best=kept)
    assert at not in [step for step, _ in kept]
    monkeypatch.undo()
    result = run(tmp_path, USUAL, evaluate=lambda model, step: values[step], best=kept)
    assert (result.resumed_from, result.best_step, kept[-1][0]) == (at, at, at)


def test_adapters_are_kept_alone_and_resume_bit_for_bit(tmp_path):
    """The frozen model is loaded again; the merged model of the best step is kept."""
    chosen = dataclasses.replace(USUAL, lora_rank=2, learning_rate=5e-2, epochs=12)
    how = {"given": examples(12), "load": lambda mesh: add_lora(tiny_model(mesh), chosen, jax.random.key(0))}

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    expected = run(straight, chosen, evaluate=accuracy_of_merged, **how)
    with pytest.raises(KilledError):
        run(broken, chosen, evaluate=dying_at(4, accuracy_of_merged), **how)
    result = run(broken, chosen, evaluate=accuracy_of_merged, **how)
    assert (result.resumed_from, result.evaluations) == (3, expected.evaluations)
    one, other = (final_state(folder, chosen, result.steps)[0] for folder in (straight, broken))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    table = adapter_table(TINY, 2)
    sizes = sum(p.size for p in table.values())
    assert sum(a.size for a in one) == 3 * sizes + 3, "adapters and their moments; counts of steps"
    losses = [line["loss"] for line in lines(straight) if "loss" in line]
    assert lines(broken)[-1] == lines(straight)[-1]
    assert losses[-1] < losses[0] - 0.2


def test_a_finished_run_only_reports(tmp_path):
    first = run(tmp_path, USUAL, evaluate=accuracy)
    again = run(tmp_path, USUAL, evaluate=dying_at(first.steps), load=None)
    assert again.resumed_from == first.steps
    assert again.evaluations == first.evaluations
    assert again.loss is None


def test_the_best_evaluation_is_kept(tmp_path):
    kept: list = []
    values = {2: 0.5, 3: 0.3, 4: 0.4, 6: 0.7, 8: 0.7, 9: 0.2, 10: 0.6, 12: 0.1}
    result = run(tmp_path, USUAL, evaluate=lambda model, step: values[step], best=kept)
    assert result.evaluations == tuple(values.items())
    assert [step for step, _ in kept] == [2, 6]
    assert result.best_step == 6


def test_a_killed_run_keeps_the_step_that_it_names(tmp_path):
    """The step is not evaluated again: the run continues from the state in which that model was kept."""
    kept: list = []
    values = {2: 0.8, 3: 0.1, 4: 0.9, 9: 0.3, 12: 0.2}
    with pytest.raises(KilledError):
        run(tmp_path, USUAL, evaluate=dying_at(6, lambda model, step: values[step]), best=kept)
    seldom = dataclasses.replace(USUAL, evaluate_every=0)
    values[6] = 0.7
    result = run(tmp_path, seldom, evaluate=lambda model, step: values[step], best=kept)
    assert kept[-1][0] == result.best_step == 4
    assert dict(result.evaluations) == values


def test_a_model_that_a_kill_kept_from_being_kept_is_kept_on_resume(tmp_path):
    class DyingOnce(list):
        dead = False

        def append(self, item):
            if item[0] == 4 and not self.dead:
                self.dead = True
                raise KilledError
            super().append(item)

    kept = DyingOnce()
    values = {2: 0.8, 3: 0.1, 4: 0.9, 6: 0.7, 8: 0.5, 9: 0.3, 10: 0.2, 12: 0.2}
    models = {}

    def evaluate(model, step):
        models[step] = arrays(model)
        return values[step]

    with pytest.raises(KilledError):
        run(tmp_path, USUAL, evaluate=evaluate, best=kept)
    result = run(tmp_path, USUAL, evaluate=evaluate, best=kept)
    assert (result.resumed_from, result.best_step) == (4, 4)
    assert [step for step, _ in kept] == [2, 4]
    for a, b in zip(kept[-1][1], models[4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_run_stops_when_its_patience_ends_and_stays_stopped(tmp_path):
    kept: list = []
    values = {2: 0.5, 3: 0.3, 4: 0.4, 6: 0.7, 8: 0.7, 9: 0.2, 10: 0.6}
    patient = dataclasses.replace(USUAL, patience=3)
    result = run(tmp_path, patient, evaluate=lambda model, step: values[step], best=kept)
    assert (result.steps, result.best_step) == (10, 6)
    assert [step for step, _ in kept] == [2, 6]
    again = run(tmp_path, patient, evaluate=dying_at(12), load=None)
    assert (again.resumed_from, again.evaluations) == (10, result.evaluations)


def test_every_epoch_ends_with_an_evaluation(tmp_path):
    chosen = dataclasses.replace(USUAL, evaluate_every=0)
    result = run(tmp_path, chosen, evaluate=accuracy)
    epoch = Batches(examples(40), chosen, 0, 1).steps_per_epoch
    assert [step for step, _ in result.evaluations] == list(range(epoch, result.steps + 1, epoch))
    assert len(result.evaluations) == chosen.epochs > 1


def test_without_evaluation_the_last_model_is_kept(tmp_path):
    kept: list = []
    result = run(tmp_path, USUAL, best=kept)
    assert [step for step, _ in kept] == [result.steps] == [result.best_step]


def test_not_a_number_stops_the_run_and_names_step_examples_and_checkpoint(tmp_path):
    def load(mesh):
        model = tiny_model(mesh)
        return jax.tree.map(lambda x: x * jnp.nan, model)

    with pytest.raises(DivergedError, match=r"step 1 \(examples: .*e\d+.*checkpoint: there is none"):
        run(tmp_path / "first", USUAL, load=load)

    # An infinite learning rate is refused; a huge one overflows the loss after the first update.
    wild = settings(learning_rate=1e15, warmup_steps=0, checkpoint_every=1, epochs=4)
    with pytest.raises(DivergedError) as error:
        run(tmp_path / "wild", wild)
    step = json.loads((tmp_path / "wild/metrics/metrics.jsonl").read_text().splitlines()[-1])["step"] + 1
    ids = ", ".join(Batches(examples(40), wild, 0, 1).example_ids(step - 1))
    # The checkpoint of the step before holds the parameters that overflowed.
    good = f"step {step - 2}" if step > 2 else "there is none"
    assert f"at step {step} (examples: {ids}); last good checkpoint: {good}" in str(error.value)


def test_parameters_that_the_last_update_ruined_are_not_kept(tmp_path):
    """Its loss and its gradient are those of the parameters before it."""
    kept: list = []
    wild = settings(learning_rate=3e38, warmup_steps=0, epochs=0.1)
    assert Batches(examples(40), wild, 0, 1).total_steps == 1
    with pytest.raises(DivergedError, match=r"train: loss \d.*, then parameter norm inf at step 1 "):
        run(tmp_path, wild, best=kept, evaluate=accuracy)
    assert kept == []
    assert not list((tmp_path / "checkpoints").glob("*/commit_success.txt"))


def test_checkpoints_of_another_run_are_refused(tmp_path):
    run(tmp_path, USUAL)
    with raises("checkpoint_mismatch", "learning_rate: 0.01 -> 0.02"):
        run(tmp_path, dataclasses.replace(USUAL, learning_rate=0.02))
    with raises("checkpoint_mismatch", "examples"):
        run(tmp_path, USUAL, given=examples(40, seed=1))


def test_a_mesh_that_does_not_fit_is_refused_before_anything_loads(tmp_path):
    with raises("config_invalid", "micro_rows 2"):
        run(tmp_path, settings(micro_rows=2), mesh=make_mesh((2, 2, 2)), load=None)
