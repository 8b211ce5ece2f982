"""A step that is not finite changes nothing but the place in the run, keeps its batch and ends the run at the limit."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from callbacks.nonfinite import Guard, NotFiniteError, load, rerun
from callbacks.recovery.seeding import DropoutSeed
from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.optimizers import AdamW
from gau_alpha.training.schedules import Linear

POISON = 29
"""The token whose embedding is not a number: a row that holds it has no finite loss, any other has."""


class Overflowing(GAUAlphaModule):
    """Has a gradient, not a loss, that is infinite where a row says so."""

    def setup(self, stage):
        weight = self.model.gau_alpha.encoder.layer[0].gau.o_dense.weight
        weight.register_hook(lambda gradient: gradient * math.inf if self.overflows else gradient)

    def training_step(self, batch, batch_idx):
        self.overflows = bool((batch["input_ids"] == POISON - 1).any())
        return super().training_step(batch, batch_idx)


class Plain(GAUAlphaModule):
    """With an optimizer that is not fused, which has to be told by the host."""

    def configure_optimizers(self):
        found = super().configure_optimizers()
        group = found["optimizer"].param_groups
        return torch.optim.AdamW([{"params": x["params"], "weight_decay": x["weight_decay"]} for x in group], lr=1e-2)


def build(kind=GAUAlphaModule, poisoned=True, dropout=0.1):
    torch.manual_seed(0)
    config = GAUAlphaConfig(
        30, 16, 24, 8, 2, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, tie_word_embeddings=False
    )
    # A rate that stays as it is: a run without the skipped steps must be a run of the same rates.
    module = kind(config, train_length=12, optimizer=AdamW(1e-2), schedule=Linear(warmup=0.0, final=1.0))
    if poisoned:
        with torch.no_grad():
            module.model.gau_alpha.embeddings.word_embeddings.weight[POISON] = math.nan
    return module


def batches(*special):
    """A batch of two rows per item: with that token in its second row, or None."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, token in enumerate(special):
        ids = torch.randint(2, 20, (2, 12), generator=generator)
        labels = torch.where(torch.arange(12) < 3, ids, -100)
        if token is not None:
            ids[1, 7] = token
        sample_ids = torch.tensor([2 * number, 2 * number + 1])
        made.append(
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "sample_ids": sample_ids}
        )
    return made


def fit(folder, module, data, *callbacks, ckpt_path=None, **kwargs):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"max_epochs": 1, "enable_checkpointing": False} | kwargs),
    )
    trainer.fit(module, DataLoader(data, batch_size=None), ckpt_path=ckpt_path)
    return trainer


def state(module, trainer):
    """Weights, moments and counts of steps, NaN for NaN."""
    moments = [x for of_one in trainer.optimizers[0].state_dict()["state"].values() for x in of_one.values()]
    return [*module.state_dict().values(), *moments]


def same(one, two):
    assert len(one) == len(two)
    return all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GAUAlphaModule, Plain], ids=["fused", "plain"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_nan_in_a_loss_ends_the_run_and_its_batch_reproduces_it(tmp_path, kind, accumulate):
    module = build(kind)
    data = batches(None, None, None, POISON, None, None)
    with pytest.raises(NotFiniteError) as stopped:
        fit(tmp_path, module, data, Guard(), DropoutSeed(), accumulate_grad_batches=accumulate)
    step, rows = (4, [6, 7]) if accumulate == 1 else (2, [4, 5, 6, 7])
    file = tmp_path / f"not_finite/step_{step}/rank_0.safetensors"
    assert f"Optimizer step {step} was skipped: the loss is not finite on process 0." in str(stopped.value)
    assert f"Process 0 had the rows {rows}" in str(stopped.value)
    assert str(file) in str(stopped.value)
    kept, facts = load(file)
    assert facts["sample_ids"] == rows
    full = {name: tensor for name, tensor in data[3].items() if name != "attention_mask"}  # it hides nothing: left out
    assert all(torch.equal(kept[-1][name], tensor) for name, tensor in full.items())
    if kind is GAUAlphaModule:
        found = rerun(file, accelerator="cpu")
        assert [math.isnan(loss) for loss in found.losses] == [False, True][-accumulate:]
        assert math.isnan(found.gradient_norm)


@pytest.mark.slow
def test_a_rerun_has_the_dropout_of_the_run(tmp_path):
    """Seen by a step whose losses are finite: it is kept because of its gradient."""
    seen = []

    class Noting(Overflowing):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            seen.append(loss.item())
            return loss

    with pytest.raises(NotFiniteError, match="the gradient is not finite, though the loss is"):
        fit(tmp_path, build(Noting, False, dropout=0.4), batches(None, POISON - 1, None), Guard(), DropoutSeed())
    assert rerun(tmp_path / "not_finite/step_2/rank_0.safetensors", accelerator="cpu").losses == [seen[1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "poison"),
    [(GAUAlphaModule, POISON), (Overflowing, POISON - 1), (Plain, POISON)],
    ids=["loss", "gradient", "plain"],
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_skipped_step_leaves_weights_and_moments_and_moves_the_rest(tmp_path, kind, poison, clip):
    good = batches(*[None] * 5)
    poisoned = batches(None, None, poison, None, None)
    skipped = build(kind, dropout=0.0)
    trainer = fit(tmp_path, skipped, poisoned, Guard(max_skips=1), gradient_clip_val=clip)
    expected = build(kind, dropout=0.0)
    alone = fit(tmp_path, expected, [good[0], good[1], good[3], good[4]], gradient_clip_val=clip)
    assert same(state(skipped, trainer), state(expected, alone))
    assert (trainer.global_step, alone.global_step) == (5, 4)
    if kind is GAUAlphaModule:
        assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 5
    assert "found_inf" not in vars(trainer.optimizers[0])
    unguarded = build(kind, dropout=0.0)
    fit(tmp_path, unguarded, poisoned, gradient_clip_val=clip)
    assert not same(list(unguarded.state_dict().values()), list(expected.state_dict().values())), "nothing was tested"


@pytest.mark.slow
def test_without_a_bad_step_the_guard_changes_no_bit(tmp_path):
    ends = []
    for callbacks in ([Guard(), DropoutSeed()], [DropoutSeed()]):
        module = build()
        ends.append(state(module, fit(tmp_path, module, batches(*[None] * 4), *callbacks)))
    assert same(*ends)


@pytest.mark.slow
def test_the_limit_goes_on_counting_after_a_resume(tmp_path):
    data = batches(None, POISON, None)
    with pytest.warns(UserWarning, match="1 of 1 steps that may be skipped"):
        trainer = fit(tmp_path, build(), data, Guard(max_skips=1))
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    with pytest.raises(NotFiniteError, match="Optimizer step 5"):
        fit(tmp_path, build(), data, Guard(max_skips=1), ckpt_path=tmp_path / "three.ckpt", max_epochs=2)
    assert (tmp_path / "not_finite/step_2/rank_0.safetensors").exists()
    assert (tmp_path / "not_finite/step_5/weights.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", [2, 3], ids=["amid", "last"])
def test_no_checkpoint_is_written_of_the_step(tmp_path, place):
    special = [None] * 4
    special[place] = POISON
    saver = ModelCheckpoint(tmp_path / "saved", save_top_k=-1, every_n_train_steps=1)
    with pytest.raises(NotFiniteError):
        fit(tmp_path, build(), batches(*special), Guard(), saver, enable_checkpointing=True)
    assert len(list((tmp_path / "saved").iterdir())) == place


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="max_skips must be at least 0, got -1"):
        Guard(max_skips=-1)
