"""Lightning's callbacks that change the state of a run: made right, or refused by name."""

import json
import signal
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy
from process_harness import same, send_signal
from safetensors.torch import load_file

from callbacks.refused import check_callbacks
from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main
from gau_alpha.training.fsdp import ShardedStrategy


class Norms(Callback):
    """Keeps the norm that a callback sees, and that of the gradient that the optimizer steps with."""

    seen: ClassVar[list[float]] = []
    stepped: ClassVar[list[float]] = []

    def on_train_start(self, trainer, pl_module):
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.stepped.append(norm(pl_module)))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(norm(pl_module))


def norm(module):
    return torch.nn.utils.get_total_norm([x.grad for x in module.parameters() if x.grad is not None]).item()


def fit(run, folder, *callbacks, **trainer):
    """Return the command of a run with further callbacks."""
    content = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(folder)))
    content["trainer"] |= trainer
    content["trainer"]["callbacks"] += callbacks
    folder.mkdir(exist_ok=True)
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["fit", "--config", str(path)]


def named(name, **arguments):
    return {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}


def test_callbacks_see_the_gradient_that_the_optimizer_steps_with(run, tmp_path):
    Norms.seen.clear()
    Norms.stepped.clear()
    assert main(fit(run, tmp_path, {"class_path": f"{__name__}.Norms"}, accumulate_grad_batches=2)) == 0
    assert Norms.seen == Norms.stepped
    assert len(Norms.seen) == 3


def test_time_alone_is_no_end(run, tmp_path, capsys):
    assert main(fit(run, tmp_path, max_steps=-1, max_time="00:00:00:05")) == 2
    error = capsys.readouterr().err
    assert "neither max_steps nor max_epochs says where the run ends" in error
    assert "which trainer.max_time may cut short" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("callback", "advice"),
    [
        (named("LearningRateFinder"), "model.optimizer.init_args.learning_rate"),
        (named("BatchSizeFinder"), "batch_size"),
        (named("StochasticWeightAveraging", swa_lrs=0.1), "EMAWeightAveraging"),
        (named("BackboneFinetuning"), "Leave it out"),
        (named("GradientAccumulationScheduler", scheduling={0: 1, 2: 4}), "trainer.accumulate_grad_batches"),
    ],
    ids=lambda value: value["class_path"].rsplit(".")[-1] if isinstance(value, dict) else "",
)
def test_what_would_change_a_run_is_refused_by_name(run, tmp_path, capsys, callback, advice):
    assert main(fit(run, tmp_path, callback)) == 2
    error = capsys.readouterr().err
    assert f"trainer.callbacks has a {callback['class_path'].rsplit('.')[-1]}" in error
    assert advice in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", [ShardedStrategy, FSDPStrategy])
def test_an_average_of_sharded_weights_is_refused_by_name(strategy):
    average = EMAWeightAveraging(decay=0.5)
    with pytest.raises(ValueError, match=f"has a EMAWeightAveraging, and {strategy.__name__} deals the weights"):
        check_callbacks([average], strategy())
    check_callbacks([average], SingleDeviceStrategy())
    check_callbacks([], strategy())


@pytest.mark.slow
def test_the_command_refuses_it_too(run, tmp_path, capsys):
    strategy = {"class_path": "gau_alpha.training.fsdp.ShardedStrategy"}
    assert main(fit(run, tmp_path, named("EMAWeightAveraging", decay=0.5), strategy=strategy)) == 2
    assert "ShardedStrategy deals the weights over processes" in capsys.readouterr().err


EVALUATION = {
    "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
    "init_args": {"every_n_train_steps": 3, "length_ratios": [1, 2], "max_tokens": None},
}
EXPORT = {"class_path": "callbacks.export.ExportHuggingFace", "init_args": {}}


def average(**arguments):
    return named("EMAWeightAveraging", decay=0.5, **arguments)


def weights(path):
    return read_checkpoint(path)["state_dict"]


def perplexities(path):
    return [row["perplexity"] for row in json.loads(path.read_text())["rows"]]


@pytest.mark.slow
@pytest.mark.parametrize("averages", [False, True], ids=["raw", "averaged"])
def test_what_is_exported_is_what_convert_would_write(run, tmp_path, averages):
    assert main(fit(run, tmp_path, EXPORT, *([average()] if averages else []))) == 0
    folder = tmp_path / "run/first"
    assert main(["convert", str(folder / "checkpoints/last.ckpt"), "there/huggingface", "--weights_only"]) == 0
    exported, converted = (
        {path.name: path.read_bytes() for path in place.iterdir()}
        for place in (folder / "huggingface", tmp_path / "there/huggingface")
    )
    assert exported.keys() == converted.keys() > {"training_data.json", "README.md", "model.safetensors"}
    for name, content in exported.items():
        assert content == converted[name], name
    # it is gone on from as the checkpoint is
    next_run = fit(run, tmp_path / "next", EXPORT)
    assert main([*next_run, "--model.init_from", str(folder / "huggingface")]) == 0
    said = json.loads((tmp_path / "next/run/first/huggingface/training_data.json").read_text())
    assert said["splits"] == json.loads(exported["training_data.json"])["splits"]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "last"])
def test_all_speak_of_the_averaged_weights(run, tmp_path, order, capsys):
    others = [EVALUATION, EXPORT]
    callbacks = [average(), *others] if order == "first" else [*others, average()]
    assert main(fit(run, tmp_path, *callbacks)) == 0
    folder = tmp_path / "run/first"
    last = folder / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["weights"] == "averaged"
    name = "model.gau_alpha.embeddings.word_embeddings.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    exported = load_file(folder / "huggingface/model.safetensors")
    assert torch.equal(exported[name.removeprefix("model.")], checkpoint["state_dict"][name])
    found = {}
    for chosen in ("averaged", "raw"):
        where = tmp_path / chosen
        args = ["extrapolate", "--ckpt_path", str(last), "--methods", "trained", "--length_ratios", "1", "2"]
        assert main([*args, "--output_dir", str(where), "--weights", chosen]) == 0
        found[chosen] = perplexities(where / "extrapolation.json")
        assert json.loads((where / "extrapolation.json").read_text())["run"]["weights"] == {"trained": chosen}
        assert main(["validate", "--ckpt_path", str(last), "--trainer.logger", "false", f"--weights={chosen}"]) == 0
        found[chosen].append(capsys.readouterr().out.partition("validation/perplexity")[2].split()[:2])
        assert main(["convert", str(last), str(where / "hf"), "--weights", chosen]) == 0
        state = "state_dict" if chosen == "averaged" else "current_model_state"
        converted = load_file(where / "hf/model.safetensors")
        assert torch.equal(converted[name.removeprefix("model.")], checkpoint[state][name])
    assert found["averaged"] != found["raw"]
    measured = json.loads((folder / "extrapolation/step_3/extrapolation.json").read_text())
    assert measured["run"]["weights"] == "averaged"
    assert [row["perplexity"] for row in measured["rows"]] == pytest.approx(found["averaged"][:2])


@pytest.mark.slow
def test_an_average_that_never_begins_is_none(run, tmp_path, capsys):
    assert main(fit(run, tmp_path, EXPORT, average(update_starting_at_step=100))) == 0
    last = tmp_path / "run/first/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["weights"] == "raw"
    for name, tensor in weights(run.checkpoint).items():
        assert torch.equal(weights(last)[name], tensor), "as without an average"
    assert main(["validate", "--ckpt_path", str(last), "--weights", "averaged", "--trainer.logger", "false"]) == 2
    assert "holds no averaged weights" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["fit", "--weights", "raw"], ["validate", "--weights", "ema"]])
def test_a_choice_of_weights_that_makes_no_sense_is_refused(args, capsys):
    assert main(args) == 2
    assert "--weights" in capsys.readouterr().err


@pytest.mark.slow
def test_an_average_goes_on_bit_for_bit(run, tmp_path):
    saver = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"every_n_train_steps": 2}}
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert main(fit(run, alone, average(), saver, max_steps=6)) == 0
    with pytest.raises(SystemExit):
        main(fit(run, killed, average(), saver, send_signal(signal.SIGTERM, 3), max_steps=6))
    assert main([*fit(run, killed, average(), saver, max_steps=6), "--auto_resume", "true"]) == 0
    one, two = (torch.load(x / "run/first/checkpoints/last.ckpt", weights_only=True) for x in (alone, killed))
    assert one["global_step"] == 6
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert same(one[part], two[part]), part


@pytest.mark.slow
def test_monitored_checkpoints_are_the_same_after_an_interruption(run, tmp_path):
    arguments = {"monitor": "validation/loss", "save_top_k": 2, "filename": "{step}"}
    saver = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    settings = {"max_steps": 8, "val_check_interval": 2, "check_val_every_n_epoch": None}
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert main(fit(run, alone, saver, **settings)) == 0
    with pytest.raises(SystemExit):
        main(fit(run, killed, saver, send_signal(signal.SIGTERM, 5), **settings))
    assert main([*fit(run, killed, saver, **settings), "--auto_resume", "true"]) == 0
    kept = [sorted(x.name for x in (one / "run/first/checkpoints").glob("step*")) for one in (alone, killed)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2
