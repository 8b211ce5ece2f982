"""Loss, gradients, metrics and schedule of training."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.position import KerpleLog, PoSE, RandomizedPositions
from gau_alpha.scaling import InfoScale, Product, ScalableSoftmax
from gau_alpha.training.metrics import MaskedLMMetrics, TokenAverage
from gau_alpha.training.optimizers import AdamW, Muon
from gau_alpha.training.schedules import Linear

CONFIG = GAUAlphaConfig(
    20, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3
)


QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def rows(targets_per_row):
    """A row of 12 tokens per entry, with that many targets."""
    generator = torch.Generator().manual_seed(3)
    batch = []
    for count in targets_per_row:
        ids = torch.randint(2, 20, (12,), generator=generator)
        labels = torch.full((12,), -100)
        labels[:count] = ids[:count]
        batch.append({"input_ids": ids, "attention_mask": torch.ones(12, dtype=torch.int64), "labels": labels})
    return batch


class PlainDescent(GAUAlphaModule):
    """Moves each weight by its gradient; AdamW would turn the rounding of a tiny gradient into a whole step."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fitted(batch, batch_size, accumulate):
    torch.manual_seed(0)
    module = PlainDescent(CONFIG, train_length=12)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        logger=False,
        **QUIET,
    )
    trainer.fit(module, DataLoader(batch, batch_size))
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2), (2, 4), (3, 3), (3, 7)])
def test_a_step_is_that_of_the_mean_over_all_targets(batch_size, accumulate):
    """Also with batches of very different numbers of targets, one of them without any, and a window cut short."""
    batch = rows([0, 0, 1, 1, 12, 11, 2, 5])
    module = fitted(batch, batch_size, accumulate)
    torch.manual_seed(0)
    expected = GAUAlphaModule(CONFIG, train_length=12).model
    ids, labels = (torch.stack([row[name] for row in batch]) for name in ("input_ids", "labels"))
    F.cross_entropy(expected(ids).flatten(0, 1), labels.flatten(), ignore_index=-100).backward()
    for (name, ours), theirs in zip(module.model.named_parameters(), expected.parameters(), strict=True):
        moved = theirs.detach() - (0 if theirs.grad is None else theirs.grad)
        torch.testing.assert_close(ours, moved, atol=2e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


class Gradients(Callback):
    """Notes the norm and the largest number of the gradient that the optimizer was given."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        gradients = [x.grad for x in pl_module.parameters()]
        self.norm, self.largest = (float(torch.nn.utils.get_total_norm(gradients, kind)) for kind in (2.0, math.inf))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", [None, "norm", "value"])
def test_gradients_are_clipped_under_either_precision(precision, algorithm):
    noted = []
    for limit in (None, 1e-3):
        torch.manual_seed(0)
        noting = Gradients()
        options = {"gradient_clip_val": limit, "gradient_clip_algorithm": algorithm if limit else None}
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, logger=False, precision=precision, callbacks=[noting], **options, **QUIET
        )
        trainer.fit(GAUAlphaModule(CONFIG, train_length=12), DataLoader(rows((3, 5)), 2))
        noted.append(noting)
    free, clipped = noted
    if algorithm == "value":
        assert clipped.largest == pytest.approx(1e-3, rel=1e-4)
        assert free.largest > 2e-3
    else:
        assert clipped.norm == pytest.approx(1e-3, rel=1e-2)
        assert free.norm > 2e-3


def test_a_batch_without_targets_has_loss_zero_attached_to_the_graph():
    module = GAUAlphaModule(CONFIG, train_length=12)
    batch = {name: torch.stack([row[name] for row in rows([0, 0])]) for name in ("input_ids", "labels")}
    loss = module.training_step(batch, 0)
    assert loss.item() == 0
    loss.backward()
    gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


def test_no_logits_beside_targets(monkeypatch):
    module = GAUAlphaModule(CONFIG, train_length=12)
    shapes = []
    module.model.cls.register_forward_hook(lambda layer, inputs, output: shapes.append(tuple(output.shape)))
    batch = {name: torch.stack([row[name] for row in rows([2, 5])]) for name in ("input_ids", "labels")}
    module.training_step(batch, 0)
    assert shapes == [(7, 20)]


def gradients_of(module, batch):
    module.zero_grad()
    nll, correct, count = module._evaluate(batch)
    nll.backward()
    return (nll, correct, count), [parameter.grad.clone() for parameter in module.model.parameters()]


def test_loss_in_pieces_is_the_loss_at_once(monkeypatch):
    module = GAUAlphaModule(CONFIG, train_length=12)
    batch = {name: torch.stack([row[name] for row in rows([2, 5, 4])]) for name in ("input_ids", "labels")}
    expected, wanted = gradients_of(module, batch)
    monkeypatch.setattr("gau_alpha.training.loss.LOGITS_AT_ONCE", 4 * 20)
    shapes = []
    module.model.cls.register_forward_hook(lambda layer, inputs, output: shapes.append(tuple(output.shape)))
    sums, gradients = gradients_of(module, batch)
    assert shapes[:3] == [(4, 20), (4, 20), (3, 20)]
    assert sums[1:] == expected[1:]
    torch.testing.assert_close(sums[0], expected[0])
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_recomputed_layers_give_the_same_bits_dropout_included():
    config = GAUAlphaConfig(20, 16, 24, 8, 2, initializer_range=0.3)
    batch = {name: torch.stack([row[name] for row in rows([2, 5])]) for name in ("input_ids", "labels")}
    results, calls = [], []
    for activation_checkpointing in (False, True):
        torch.manual_seed(0)
        module = GAUAlphaModule(
            config, 12, AttentionMethod(scaling=ScalableSoftmax()), activation_checkpointing=activation_checkpointing
        )
        module.model.gau_alpha.encoder.layer[0].gau.o_dense.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(1)
        results.append(gradients_of(module, batch)[1])
    assert len(calls) == 3, "once, then twice"
    assert all(map(torch.equal, *results))


def test_metrics_are_sums_and_counts():
    metrics = MaskedLMMetrics("train/")
    metrics.add(torch.tensor(6.0), torch.tensor(1), torch.tensor(2))
    metrics.add(torch.tensor(2.0), torch.tensor(6), torch.tensor(6))
    values = metrics.compute()
    assert values["train/loss"] == 1.0  # not the mean 1.67 of the batches' means
    assert values["train/perplexity"].item() == pytest.approx(math.e)
    assert values["train/accuracy"] == 7 / 8


def test_metrics_survive_bfloat16():
    module = GAUAlphaModule(CONFIG, train_length=12).to(torch.bfloat16)
    average = module.train_metrics["loss"]
    for _ in range(1000):
        average.update(torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1))
    assert average.total == 1000
    assert average.count == 1000
    assert average.total.dtype == torch.float64


def test_average_of_nothing_is_not_a_number():
    assert TokenAverage().compute().isnan()


def test_hyperparameters_are_plain_data():
    module = GAUAlphaModule(CONFIG, 12, AttentionMethod(scaling=InfoScale()))
    stored = module.hparams["method"]["scaling"]
    assert stored == {
        "class_path": "gau_alpha.scaling.InfoScale",
        "init_args": {"train_length": 12, "minimum": 0.0, "count": "visible"},
    }
    rates = {"learning_rate": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.98]}
    assert module.hparams["optimizer"] == {"class_path": "gau_alpha.training.optimizers.AdamW", "init_args": rates}


@pytest.mark.slow
def test_loaded_from_a_checkpoint_it_is_the_same_module(tmp_path):
    module = GAUAlphaModule(CONFIG, 12, AttentionMethod(scaling=InfoScale()), schedule=Linear(0.3, 0.1))
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, DataLoader(rows([3, 2]), 2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = GAUAlphaModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.hparams == module.hparams
    assert again.schedule.describe() == module.schedule.describe()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in module.state_dict().items())
    muon = GAUAlphaModule.load_from_checkpoint(tmp_path / "a.ckpt", optimizer=Muon(0.5)).optimizer
    assert muon.learning_rate == 0.5
    moved = GAUAlphaModule.load_from_checkpoint(tmp_path / "a.ckpt", map_location="meta")
    assert {parameter.device.type for parameter in moved.parameters()} == {"meta"}


LEARNED = {
    "ssmax": AttentionMethod(scaling=ScalableSoftmax(bias=True)),
    "kerple": AttentionMethod(position=KerpleLog()),
    "product": AttentionMethod(scaling=Product([ScalableSoftmax(), InfoScale()])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_learned_strategies_learn_and_reload(name, tmp_path):
    module = GAUAlphaModule(CONFIG, 12, LEARNED[name], AdamW(0.1))
    before = {key: p.clone() for key, p in module.named_parameters() if ".method." in key}
    assert before
    trainer = Trainer(accelerator="cpu", max_steps=2, logger=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, DataLoader(rows([3, 2, 4, 5]), 2))
    for key, old in before.items():
        assert not torch.equal(module.get_parameter(key), old), key
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = GAUAlphaModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in module.state_dict().items())


def test_scalable_softmax_starts_at_one():
    tau = ScalableSoftmax().with_train_length(64).temperature(torch.tensor([8, 64, 4096]), 8)
    torch.testing.assert_close(tau, torch.tensor([0.5, 1.0, 2.0]))


@pytest.mark.slow
def test_a_trained_strategy_gives_way_to_another_when_evaluating(tmp_path):
    learned = GAUAlphaModule(CONFIG, 12, LEARNED["ssmax"])
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(learned, DataLoader(rows([3, 2]), 2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    free = GAUAlphaModule(CONFIG, 12, AttentionMethod(scaling=InfoScale()))
    data = DataLoader(rows([3, 2]), 2)
    trainer.validate(free, data, ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert torch.equal(free.model.cls.predictions["decoder"].weight, learned.model.cls.predictions["decoder"].weight)
    untrained = GAUAlphaModule(CONFIG, 12, LEARNED["kerple"])
    with pytest.warns(UserWarning, match="KerpleLog.* is learned in training, and this checkpoint was trained without"):
        trainer.validate(untrained, data, ckpt_path=tmp_path / "a.ckpt", verbose=False)


@pytest.mark.parametrize("position", [PoSE(4096), RandomizedPositions(4096)], ids=repr)
def test_drawn_positions_are_used_in_training_alone(position):
    module = GAUAlphaModule(CONFIG, 12, AttentionMethod(position=position))
    given = []
    module.model.register_forward_pre_hook(lambda _, args, kw: given.append(kw.get("position_ids")), with_kwargs=True)
    batch = {name: torch.stack([row[name] for row in rows([2, 3])]) for name in ("input_ids", "labels")}
    batch["sample_ids"] = torch.tensor([7, 3])
    module.training_step(batch, 0)
    module.validation_step(batch, 0)
    drawn, evaluated = given
    assert torch.equal(drawn, position.sample_position_ids([7, 3], epoch=0, length=12))
    assert drawn.max() > 12
    assert evaluated is None


GOLDEN_RUN = """
import sys
import torch
from lightning.pytorch import Trainer, Callback
from torch.utils.data import DataLoader
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.position import KerpleLog, PoSE, RandomizedPositions
from gau_alpha.scaling import InfoScale, NoScaling, Product, ScalableSoftmax
from gau_alpha.similarity import CosScale
from gau_alpha.training.optimizers import AdamW

class Losses(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        print("loss", outputs["loss"].item().hex())

torch.manual_seed(0)
rows = []
for _ in range(80):
    ids = torch.randint(2, 30, (16,))
    labels = torch.where(torch.rand(16) < 0.3, ids, -100)
    rows.append({"input_ids": ids, "attention_mask": (torch.arange(16) < 14).long(), "labels": labels})
rate = float(sys.argv[1])
config = GAUAlphaConfig(30, 16, 24, 8, 2, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)
module = GAUAlphaModule(config, 16, AttentionMethod(CosScale(8.0), InfoScale()), AdamW(1e-2))
Trainer(accelerator="cpu", max_steps=20, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Losses()]).fit(module, DataLoader(rows, 4))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "file"), [("0.1", "golden_losses"), ("0", "golden_losses_without_dropout")])
def test_twenty_golden_losses(dropout, file):
    """To the last digit; the math libraries are told to compute alike on every x86-64 processor."""
    alike = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GOLDEN_RUN, dropout],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **alike},
    )
    losses = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("loss ")]
    assert losses == (Path(__file__).parent / f"{file}.txt").read_text().split()
    assert len(losses) == 20
    assert float.fromhex(losses[-1]) != float.fromhex(losses[0])
