"""Optimizers and schedules: what each steps, by how much, and that they go on from a checkpoint as they were."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.scaling import NoScaling
from gau_alpha.training.compatibility import check_optimizer_state
from gau_alpha.training.joined import JoinedOptimizer
from gau_alpha.training.optimizers import AdamW, Muon, OptimizerFactory, parameter_groups, split_parameters
from gau_alpha.training.schedules import WSD, Cosine, Linear

CONFIG = GAUAlphaConfig(20, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def rows(count=4):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, 20, (count, 12), generator=generator)
    return [{"input_ids": one, "labels": torch.where(torch.arange(12) < 4, one, -100)} for one in ids]


def test_what_decays():
    module = GAUAlphaModule(GAUAlphaConfig(20, 16, 24, 8, 2, use_bias=True), train_length=12)
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in parameter_groups(module.model, 0.1))
    assert decayed | others == set(names.values())
    assert all(name.endswith(("_dense.weight", "embeddings.weight")) for name in decayed)
    assert {name.rsplit(".", 2)[1] for name in others} >= {"q_scaleoffset", "k_scaleoffset", "i_dense"}


class Table(NoScaling):
    """A strategy that learns a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.ones(2, 2))


def test_what_a_method_learns_never_decays():
    module = GAUAlphaModule(CONFIG, 12, AttentionMethod(scaling=Table()))
    decayed, others = ({id(p) for p in group["params"]} for group in parameter_groups(module.model, 0.1))
    tables = {id(p) for name, p in module.named_parameters() if name.endswith("table")}
    assert len(tables) == 2
    assert tables <= others
    assert not tables & decayed


@pytest.mark.parametrize("schedule", [Cosine(0.1, 0.05), Linear(0.1, 0.05)])
def test_schedule(schedule):
    factors = [schedule.factor(step, 100) for step in range(101)]
    assert 0 < factors[0] < factors[5] < factors[9] < 1
    assert factors[10] == 1
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.05)
    assert schedule.factor(1000, 100) == pytest.approx(0.05)  # a run that goes on never rises again
    middle = 0.05 + 0.95 * 0.5
    assert schedule.factor(55, 100) == pytest.approx(middle)


def test_schedule_without_warmup_starts_at_its_peak():
    assert Linear(warmup=0.0).factor(0, 10) == 1
    with pytest.raises(ValueError, match="warmup must be a fraction from 0 to 1, got 2"):
        Cosine(warmup=2)


def test_wsd_is_flat_between_warmup_and_decay():
    schedule = WSD(warmup=0.1, decay=0.2, final=0.1)
    factors = [schedule.factor(step, 100) for step in range(101)]
    assert 0 < factors[0] < factors[9] < 1
    assert factors[10:81] == [1.0] * 71
    assert factors[85] == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(5 / 20)))
    assert factors[100] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(factors[80:]))
    with pytest.raises(ValueError, match=r"warmup 0\.5 and decay 0\.6 are more than the whole run"):
        WSD(warmup=0.5, decay=0.6)


def names_of(model, parameters):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(one)] for one in parameters}


def test_muon_steps_the_matrices_of_layers_and_adamw_all_else():
    model = GAUAlphaModule(GAUAlphaConfig(20, 16, 24, 8, 2, use_bias=True, tie_word_embeddings=False), 12).model
    hidden, matrices, others = (names_of(model, some) for some in split_parameters(model))
    layers = {f"gau_alpha.encoder.layer.{n}.gau.{name}_dense.weight" for n in range(2) for name in "io"}
    assert hidden == layers
    assert matrices == {
        "gau_alpha.embeddings.word_embeddings.weight",
        "gau_alpha.embeddings.token_type_embeddings.weight",
        "cls.predictions.decoder.weight",
    }
    assert others == {name for name, _ in model.named_parameters()} - hidden - matrices
    said = Muon().summary(model)
    count = sum(model.get_parameter(name).numel() for name in hidden)
    assert said.startswith(f"Muon (hidden matrices, by Muon: 4 tensors, {count:,} numbers; embeddings and head")


def test_frozen_parameters_are_left_out():
    model = GAUAlphaModule(CONFIG, 12).model
    model.gau_alpha.encoder.layer[0].requires_grad_(False)
    optimizer = Muon().build(model, fused=False)
    assert not any("layer.0" in name for group in optimizer.param_groups for name in names_of(model, group["params"]))


def test_muon_steps_as_torchs_two_optimizers_would():
    """Rates that a schedule changes reach both, and the step is theirs bit for bit."""
    factory = Muon(3e-3, 0.1, momentum=0.9, adamw_learning_rate=1e-3)
    ours, theirs = (GAUAlphaModule(CONFIG, 12).model for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    joined = factory.build(ours, fused=True)
    hidden, matrices, others = split_parameters(theirs)
    muon = torch.optim.Muon(hidden, lr=3e-3, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.98),
        fused=True,
    )
    for step in range(3):
        for optimizer in (joined, muon, adamw):
            for group in optimizer.param_groups:
                group["lr"] *= 0.5**step
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in (joined, muon, adamw):
            optimizer.step()
    assert [group["lr"] for group in joined.param_groups] == [3e-3 / 8, 1e-3 / 8, 1e-3 / 8]
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_step_of_muon_is_the_momentum_with_singular_values_made_alike():
    """Against a singular value decomposition: no step is more than Newton–Schulz's band of 0.7 to 1.2 away from UVᵀ."""
    torch.manual_seed(1)
    model = GAUAlphaModule(CONFIG, 12).model
    weight = model.gau_alpha.encoder.layer[0].gau.i_dense.weight  # (56, 16)
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    Muon(0.5, weight_decay=0.0).build(model, fused=False).step()
    step = (before - weight.detach()) / (0.5 * 0.2 * math.sqrt(56))  # match_rms_adamw: as large as AdamW's
    u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
    along = torch.diagonal(u.T @ step @ v.T)
    assert along.min() > 0.6
    assert along.max() < 1.3
    rest = step - u @ torch.diag(along) @ v
    assert rest.abs().max() < 0.02, "bfloat16"


def stepped(optimizer, model, seed):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("factory", [AdamW(1e-2), Muon(1e-2)], ids=lambda one: type(one).__name__)
def test_a_restored_optimizer_goes_on_bit_for_bit(factory):
    ours, theirs = (GAUAlphaModule(CONFIG, 12).model for _ in range(2))
    first = factory.build(ours, fused=True)
    for seed in range(2):
        stepped(first, ours, seed)
    theirs.load_state_dict(ours.state_dict())
    second = factory.build(theirs, fused=True)
    second.register_load_state_dict_pre_hook(check_optimizer_state)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch would share the tensors
    for optimizer, model in ((first, ours), (second, theirs)):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3  # as a schedule does, after all has been restored
        stepped(optimizer, model, 7)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["state"][0].update(momentum_buffer=torch.zeros(3)),
            r"state\[0\]\.momentum_buffer must be",
        ),
        (lambda state: state["state"][0].update(momentum_buffer=None), r"momentum_buffer must be"),
        (lambda state: state["state"][0].clear() or state["state"][0].update(x=1), r"state\[0\] lacks momentum_buffer"),
        (lambda state: state["param_groups"][0].update(momentum="x"), r"momentum must be a finite number"),
        (lambda state: state["param_groups"][0].update(momentum=-1.0), r"momentum should be >= 0"),
        (lambda state: state["param_groups"].pop(), r"param_groups must be a list of 3"),
        (lambda state: state["state"][4].pop("exp_avg"), r"state\[4\] lacks exp_avg"),
    ],
)
def test_a_state_that_muon_can_not_go_on_with_is_refused(change, message):
    model = GAUAlphaModule(CONFIG, 12).model
    optimizer = Muon().build(model, fused=False)
    stepped(optimizer, model, 0)
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        check_optimizer_state(optimizer, state)


def test_a_closure_is_called_once():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    joined = JoinedOptimizer([torch.optim.SGD([one], lr=1.0) for one in weights])
    calls = []

    def closure():
        calls.append(1)
        for weight in weights:
            weight.grad = torch.ones(2, 2)
        return 3.0

    assert joined.step(closure) == 3.0
    assert calls == [1]
    assert all((weight == 0).all() for weight in weights)


class Descent(OptimizerFactory):
    """One of a user's own."""

    def build(self, model, fused):
        return torch.optim.SGD(model.parameters(), lr=self.learning_rate, momentum=0.9)

    def parts(self, model):
        return {"all": list(model.parameters())}


class SaveAt(Callback):
    """Saves at these steps, and may stop there."""

    def __init__(self, folder, *steps, stop=False):
        self.folder, self.steps, self.stop = folder, steps, stop

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")
            trainer.should_stop = self.stop


def fitted(folder, optimizer, schedule, steps, ckpt_path=None, saver=None):
    torch.manual_seed(0)
    module = GAUAlphaModule(CONFIG, 12, optimizer=optimizer, schedule=schedule)
    trainer = Trainer(max_steps=steps, default_root_dir=folder, callbacks=saver, **QUIET)
    trainer.fit(module, DataLoader(rows(), 4), ckpt_path=ckpt_path)
    return module, trainer


@pytest.mark.slow
def test_an_optimizer_of_ones_own_trains_and_goes_on(tmp_path):
    fitted(tmp_path, Descent(0.1), Linear(final=0.5), 4, saver=SaveAt(tmp_path, 4))
    module, _ = fitted(tmp_path, Descent(0.1), Linear(final=0.5), 8, ckpt_path=tmp_path / "4.ckpt")
    named = f"{__name__}.Descent"
    with pytest.raises(ValueError, match=r"optimizer names .*Descent.*what is known there is AdamW, Muon"):
        GAUAlphaModule.load_from_checkpoint(tmp_path / "4.ckpt")
    assert module.hparams["optimizer"]["class_path"] == named


@pytest.mark.slow
def test_another_optimizer_than_the_checkpoints_is_refused_by_name(tmp_path):
    fitted(tmp_path, AdamW(), None, 2, saver=SaveAt(tmp_path, 2))
    with pytest.raises(
        ValueError, match=r"trained by 'gau_alpha.training.optimizers.AdamW', whose state .*\.Muon: go on"
    ):
        fitted(tmp_path, Muon(), None, 4, ckpt_path=tmp_path / "2.ckpt")


@pytest.mark.slow
def test_a_checkpoint_from_before_optimizers_had_names_is_one_clear_message(tmp_path):
    module, _ = fitted(tmp_path, None, None, 1, saver=SaveAt(tmp_path, 1))
    checkpoint = torch.load(tmp_path / "1.ckpt", weights_only=True)
    del checkpoint["hyper_parameters"]["optimizer"]
    checkpoint["hyper_parameters"] |= {"learning_rate": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.98]}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(
        ValueError, match=r"saved before optimizers were named by class.*learning_rate, weight_decay, be"
    ):
        GAUAlphaModule.load_from_checkpoint(tmp_path / "old.ckpt")
    started = GAUAlphaModule(CONFIG, 12, init_from=str(tmp_path / "old.ckpt"))  # as the message says
    assert all(map(torch.equal, started.parameters(), module.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [AdamW(1e-2), Muon(1e-2)], ids=lambda one: type(one).__name__)
def test_a_decay_starts_from_any_stable_checkpoint_and_goes_on_bit_for_bit(tmp_path, optimizer):
    """A run that is still stable is decayed to an end that was not planned; once there, it is at an end."""
    schedule = WSD(warmup=0.1, decay=0.5)
    fitted(tmp_path, optimizer, schedule, 40, saver=SaveAt(tmp_path, 15, stop=True))  # would fall from step 20 on
    with pytest.warns(UserWarning, match="made for 40 .* and is now for 19: .* at step 15, falls from step 15 on"):
        decayed, trainer = fitted(tmp_path, optimizer, schedule, 19, tmp_path / "15.ckpt", SaveAt(tmp_path, 17, 19))
    expected = [1 - math.sqrt(done / 4) for done in range(5)]  # by the planned curve it would have begun at step 9.5
    assert [decayed._resumable_schedule.factor(step) for step in range(15, 20)] == expected
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.0] * len(
        trainer.optimizers[0].param_groups
    )
    again, _ = fitted(tmp_path, optimizer, schedule, 19, tmp_path / "17.ckpt")
    assert all(map(torch.equal, again.parameters(), decayed.parameters()))
    with pytest.raises(ValueError, match="ended at step 19 with a learning rate of 0"):
        fitted(tmp_path, optimizer, schedule, 40, tmp_path / "19.ckpt")
