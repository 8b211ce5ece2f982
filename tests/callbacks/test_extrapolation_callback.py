"""The callback measures at the right steps, writes what it measured, and leaves training as it would have been."""

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from callbacks.extrapolation import ExtrapolationEvaluation
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation.spans import EvaluationSpans
from gau_alpha.scaling import Scaling
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.training.schedules import Linear
from gau_alpha.vocabulary import Vocabulary

TRAIN_LENGTH = 16


class Documents(LightningDataModule):
    """Rows shuffled by the global generator and masked by Python's: what an evaluation could disturb."""

    vocabulary = Vocabulary(30, 1, 0)
    train_length = TRAIN_LENGTH

    def __init__(self, longest: int = 140):
        super().__init__()
        self.longest = longest
        self.seen: list[list[int]] = []

    def evaluation_documents(self):
        np.random.rand()  # noqa: NPY002  a careless source
        return [np.random.default_rng(seed).integers(2, 30, size=self.longest - seed) for seed in range(4)]

    def train_dataloader(self):
        tokens = torch.from_numpy(np.random.default_rng(9).integers(2, 30, size=(24, TRAIN_LENGTH)))
        return DataLoader(list(tokens), batch_size=4, shuffle=True, collate_fn=self._mask)

    def _mask(self, rows):
        input_ids = torch.stack(rows)
        self.seen.append(input_ids.flatten().tolist())
        labels = torch.full_like(input_ids, -100)
        for row in range(len(rows)):
            place = random.randrange(TRAIN_LENGTH)
            labels[row, place] = input_ids[row, place]
            input_ids[row, place] = 1
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}


def module() -> GAUAlphaModule:
    config = GAUAlphaConfig(30, hidden_size=16, intermediate_size=24, attention_key_size=8, num_hidden_layers=2)
    # A rate that falls to 0 would leave a resumed run nothing to go on with.
    return GAUAlphaModule(config, train_length=TRAIN_LENGTH, schedule=Linear(final=0.5))


def fit(folder, *callbacks, data=None, model=None, logger=None, ckpt_path=None, **kwargs):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    data = data or Documents()
    model = model or module()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=logger or CSVLogger(folder),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"max_steps": 7, "enable_checkpointing": False, "log_every_n_steps": 1} | kwargs),
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return trainer, model, data


def evaluation(every=3, **kwargs) -> ExtrapolationEvaluation:
    return ExtrapolationEvaluation(every, **({"length_ratios": [1, 2, 8]} | kwargs))


class Noting(ExtrapolationEvaluation):
    """Notes the steps at which it measures."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.measured = []

    def _evaluate(self, trainer, pl_module):
        self.measured.append(trainer.global_step)
        super()._evaluate(trainer, pl_module)


def steps(folder) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.rglob("step_*"))


@pytest.mark.slow
def test_measures_at_multiples_and_at_the_end(tmp_path):
    trainer, _, _ = fit(tmp_path, evaluation(methods=["trained", "infoscale"]))
    assert steps(tmp_path) == [3, 6, 7]
    folder = tmp_path / "lightning_logs" / "version_0" / "extrapolation"
    assert str(folder.parent) == trainer.log_dir
    content = json.loads((folder / "step_6" / "extrapolation.json").read_text())
    assert [(row["method"], row["length"]) for row in content["rows"]] == [
        (method, length) for length in (16, 32, 128) for method in ("trained", "infoscale")
    ]
    assert all(row["status"] == "ok" and row["num_documents"] == 4 for row in content["rows"])
    assert content["run"]["step"] == 6
    assert content["run"]["methods"]["infoscale"]["scaling"]["init_args"]["train_length"] == TRAIN_LENGTH
    suffixes = [".csv", ".documents.parquet", ".html", ".json", ".md", ".png"]
    assert sorted(path.name for path in (folder / "step_6").iterdir()) == [f"extrapolation{one}" for one in suffixes]


@pytest.mark.slow
def test_the_last_step_is_not_measured_twice(tmp_path):
    callback = Noting(7, length_ratios=[1])
    fit(tmp_path, callback)
    assert callback.measured == [7]


@pytest.mark.slow
def test_accumulated_batches_are_one_step(tmp_path):
    callback = Noting(2, length_ratios=[1])
    fit(tmp_path, callback, accumulate_grad_batches=3, max_steps=5)
    assert callback.measured == [2, 4, 5]


@pytest.mark.slow
def test_a_resumed_run_does_not_repeat_an_evaluation(tmp_path):
    first, _, _ = fit(tmp_path / "a", evaluation(), max_steps=3)
    first.save_checkpoint(tmp_path / "three.ckpt")
    fit(tmp_path / "b", evaluation(), max_steps=7, ckpt_path=tmp_path / "three.ckpt")
    assert steps(tmp_path / "b") == [6, 7]


@pytest.mark.slow
def test_output_dir(tmp_path):
    fit(tmp_path / "run", evaluation(every=100, output_dir=str(tmp_path / "elsewhere")))
    assert steps(tmp_path / "run") == []
    assert (tmp_path / "elsewhere" / "extrapolation" / "step_7" / "extrapolation.png").exists()


@pytest.mark.slow
def test_tensorboard_gets_scalars_against_the_optimizer_step_and_the_plot(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, evaluation(methods=["trained", "infoscale"], length_ratios=[1, 8, 16]), logger=logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    tags = events.Tags()
    expected = {
        f"extrapolation/{method}/x{ratio:03}/{metric}"
        for method in ("trained", "infoscale")
        for ratio in (1, 8)  # no document has 16 × 16 tokens
        for metric in ("loss", "perplexity", "accuracy", "attention_entropy", "near_share")
    }
    assert {tag for tag in tags["scalars"] if tag.startswith("extrapolation/")} == expected | {
        "extrapolation/seconds",
        "extrapolation/share_of_time",
    }
    points = events.Scalars("extrapolation/trained/x008/loss")
    assert [point.step for point in points] == [3, 6, 7]
    written = json.loads((tmp_path / "lightning_logs/version_0/extrapolation/step_6/extrapolation.json").read_text())
    (row,) = [row for row in written["rows"] if (row["method"], row["length_ratio"]) == ("trained", 8)]
    assert points[1].value == pytest.approx(row["loss"], rel=1e-6)
    assert all(point.value > 0 for point in events.Scalars("extrapolation/seconds"))
    assert [image.step for image in events.Images("extrapolation/perplexity")] == [3, 6, 7]


@pytest.mark.slow
def test_it_says_what_it_costs(tmp_path, monkeypatch, caplog):
    """By a clock that a step moves by 2 s and an evaluation by 1 s."""
    now = [100.0]
    monkeypatch.setattr("callbacks.extrapolation.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Stepping(Callback):
        def on_train_batch_start(self, *args):
            now[0] += 2

    class Slow(ExtrapolationEvaluation):
        def _resolve(self, *args):
            if now[0] > 100:  # not when training starts
                now[0] += 1
            return super()._resolve(*args)

    logger = TensorBoardLogger(tmp_path)
    with caplog.at_level("INFO"):
        fit(tmp_path, Stepping(), Slow(3, length_ratios=[1]), logger=logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert [point.value for point in events.Scalars("extrapolation/seconds")] == [1, 1, 1]
    shares = [point.value for point in events.Scalars("extrapolation/share_of_time")]
    assert shares == pytest.approx([1 / 7, 2 / 14, 3 / 17])
    assert "3 evaluations took 3.0 s, 17.6% of the 17.0 s since training began" in caplog.text


def state(trainer, model, data):
    moments = trainer.optimizers[0].state_dict()["state"]
    return {
        "weights": {name: value.tolist() for name, value in model.state_dict().items() if "model." in name},
        "moments": {
            key: {name: torch.as_tensor(value).tolist() for name, value in of_one.items()}
            for key, of_one in moments.items()
        },
        "batches": data.seen,
        "random": (random.random(), np.random.rand(), torch.rand(3).tolist()),  # noqa: NPY002
    }


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_is_bit_identical_with_and_without(tmp_path, every, precision):
    without = state(*fit(tmp_path / "without", precision=precision))
    callback = evaluation(every, methods=["trained", "infoscale", "cosscale"])
    having = state(*fit(tmp_path / "with", callback, precision=precision))
    assert steps(tmp_path / "with")[-1] == 7, "nothing was measured: nothing was tested"
    assert having == without


@pytest.mark.slow
def test_measures_in_the_trainers_precision_and_without_dropout(tmp_path):
    seen = []

    class Watched(GAUAlphaForMaskedLM):
        def forward(self, *args, **kwargs):
            seen.append((self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            return super().forward(*args, **kwargs)

    model = module()
    model.model.__class__ = Watched
    fit(tmp_path, evaluation(), model=model, precision="bf16-mixed")
    assert seen.count((True, True, True)) == 7
    assert seen.count((False, False, True)) == 3 * 3
    assert len(seen) == 16


@pytest.mark.slow
def test_a_failing_evaluation_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    model = module()
    own = model.model.method

    def fail(self, batch):
        raise OSError("a document can't be read")

    monkeypatch.setattr("gau_alpha.extrapolation.spans.EvaluationSpans.batch", lambda *args: fail(*args[:2]))
    with pytest.raises(OSError, match="can't be read"):
        fit(tmp_path, evaluation(methods=["infoscale"]), model=model)
    assert model.model.training
    assert model.model.method is own
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_out_of_memory_does_not_end_training(tmp_path):
    class Small(GAUAlphaForMaskedLM):
        def forward(self, input_ids, **kwargs):
            if input_ids.shape[1] >= 32:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(input_ids, **kwargs)

    model = module()
    model.model.__class__ = Small
    trainer, _, _ = fit(tmp_path, evaluation(), model=model)
    assert trainer.global_step == 7
    (path,) = tmp_path.rglob("step_7/extrapolation.json")
    statuses = [row["status"] for row in json.loads(path.read_text())["rows"]]
    assert statuses == ["ok", "out of memory", "out of memory"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "callback", "message"),
    [
        (None, evaluation(), r"no data module, which lacks vocabulary, train_length, evaluation_documents"),
        (Documents(longest=10), evaluation(), r"longest of 4 has 10 tokens"),
        (Documents(), evaluation(methods=["infoscael"]), r"infoscael.*infoscale"),
        (Documents(), evaluation(methods=["trained", "calibrated"]), r"'calibrated' needs a table.*after training"),
        (Documents(), evaluation(methods=["random_keys"]), r"'random_keys' needs a table.*after training"),
    ],
    ids=["no data module", "short documents", "unknown method", "no table", "no entropies"],
)
def test_what_is_wrong_is_said_before_the_first_step(tmp_path, data, callback, message):
    model = module()
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, callbacks=[callback], max_steps=3,
                      enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    source = {"train_dataloaders": Documents().train_dataloader()} if data is None else {"datamodule": data}
    with pytest.raises(ValueError, match=message):
        trainer.fit(model, **source)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every_n_train_steps": 0}, "every_n_train_steps must be at least 1, got 0"),
        ({"methods": [1]}, r"methods must be a list of names, got \[1\]"),
        ({"methods": []}, "methods is empty.*'trained'"),
        ({"length_ratios": [0]}, "Each of length_ratios must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ExtrapolationEvaluation(**({"every_n_train_steps": 5} | wrong))


@pytest.mark.slow
def test_no_training_no_evaluation(tmp_path):
    fit(tmp_path, evaluation(), max_steps=0)
    assert steps(tmp_path) == []


def test_a_config_file_can_name_it():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(ExtrapolationEvaluation, "callback")
    given = {"class_path": "callbacks.extrapolation.ExtrapolationEvaluation"}
    given["init_args"] = {"every_n_train_steps": 5, "length_ratios": [1, 2], "methods": ["trained", "infoscale"]}
    callback = parser.instantiate(parser.parse_object({"callback": given})).callback
    assert list(callback.options[0].ratios) == [1, 2]
    assert (callback.options[0].max_documents, callback.options[0].max_tokens) == (None, 65536)
    del given["init_args"]["length_ratios"]
    callback = parser.instantiate(parser.parse_object({"callback": given})).callback
    assert list(callback.options[0].ratios) == [1, 2, 4, 8, 16]
    assert math.isclose(callback.options[0].tokens_per_batch, 8192)


class Learned(Scaling):
    """τ = s · ln n with a learned s per layer, as ScalableSoftmax has it."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.4))

    def temperature(self, num_visible_keys, key_size):
        return self.slope * num_visible_keys.float().log()


class Validating(Documents):
    def val_dataloader(self):
        return self.train_dataloader()


@pytest.mark.slow
def test_learned_strategies_still_learn_with_the_sanity_check_on(tmp_path):
    results = []
    for name, callbacks in (("without", []), ("with", [evaluation(2, methods=["trained", "infoscale"])])):
        torch.manual_seed(5)
        config = GAUAlphaConfig(30, hidden_size=16, intermediate_size=24, attention_key_size=8, num_hidden_layers=2)
        model = GAUAlphaModule(config, TRAIN_LENGTH, AttentionMethod(scaling=Learned()))
        slopes = [block.gau.method.scaling.slope for block in model.model.gau_alpha.encoder.blocks()]
        fit(tmp_path / name, *callbacks, data=Validating(), model=model, num_sanity_val_steps=1, limit_val_batches=1)
        assert slopes[0].item() != slopes[1].item()
        assert all(slope.grad is None or slope.grad.isfinite() for slope in slopes)
        assert all(slope.item() != 0.4 for slope in slopes), "gradients reach the strategy of every layer"
        own = [block.gau.method.scaling.slope for block in model.model.gau_alpha.encoder.blocks()]
        assert all(a is b for a, b in zip(own, slopes, strict=True)), "the strategies are the very same afterwards"
        results.append([slope.item() for slope in slopes])
    assert steps(tmp_path / "with") == [2, 4, 6, 7]
    assert results[0] == results[1]


@pytest.mark.slow
def test_training_is_bit_identical_also_when_an_evaluation_raises(tmp_path, monkeypatch):
    without = state(*fit(tmp_path / "without", max_steps=7))

    class Forgiving(ExtrapolationEvaluation):
        """Goes on after an error, as a user's own callback might."""

        failed = 0

        def _evaluate(self, trainer, pl_module):
            try:
                super()._evaluate(trainer, pl_module)
            except OSError:
                self.failed += 1
                self._last_step = trainer.global_step

    original, calls = EvaluationSpans.batch, []

    def fail_sometimes(self, *args):
        calls.append(1)
        if len(calls) % 2 == 0:
            random.random()
            torch.rand(1)
            raise OSError("a document can't be read")
        return original(self, *args)

    monkeypatch.setattr(EvaluationSpans, "batch", fail_sometimes)
    callback = Forgiving(1, length_ratios=[1, 2], methods=["infoscale", "trained"])
    having = state(*fit(tmp_path / "with", callback, max_steps=7))
    assert callback.failed == 7
    assert having == without


@pytest.mark.slow
def test_two_protocols_are_measured_and_logged(tmp_path):
    class Longer(Documents):
        train_length = 64

    logger = TensorBoardLogger(tmp_path)
    callback = evaluation(every=4, protocol=["mlm", "copy"], length_ratios=[1, 2])
    model = GAUAlphaModule(GAUAlphaConfig(30, 16, 24, 8, 2), train_length=64)
    fit(tmp_path, callback, data=Longer(), model=model, logger=logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    gains = events.Scalars("extrapolation/trained/x002/gain")
    assert [point.step for point in gains] == [4, 7]
    (path,) = tmp_path.rglob("step_7/extrapolation.json")
    content = json.loads(path.read_text())
    found = {(row["protocol"], row["length_ratio"]): row for row in content["rows"]}
    assert gains[1].value == pytest.approx(found["copy", 2]["gain"], rel=1e-6)
    losses = events.Scalars("extrapolation/trained/x002/loss")
    assert losses[1].value == pytest.approx(found["mlm", 2]["loss"], rel=1e-6), "not that of the other protocol"
    assert list(content["run"]["evaluations"]) == ["mlm", "copy"]
    assert callback.summary_metrics() == [f"extrapolation/trained/x{ratio}/accuracy" for ratio in ("001", "002")]


def test_protocols_that_would_be_logged_by_one_name_are_refused():
    with pytest.raises(ValueError, match="mlm and single-mask, whose numbers are logged by one name"):
        evaluation(protocol=["mlm", "single-mask"])
