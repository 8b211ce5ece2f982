"""Checkpoints of compiled and of plain runs go on as each other; those of compiled ones as if nothing had been."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from small_run import rows, write_config, write_corpus

from gau_alpha.attention.kernels import blocked
from gau_alpha.checkpoints import load_plain
from gau_alpha.cli import main

LAST = "run/one/checkpoints/last.ckpt"
AMID = "run/one/checkpoints/epoch=0-step=4.ckpt"


class Compile(Callback):
    """Compiles the model, in place or by wrapping it."""

    def __init__(self, wrap: bool) -> None:
        self.wrap = wrap

    def setup(self, trainer, pl_module, stage):
        if self.wrap:
            pl_module.model = torch.compile(pl_module.model, backend="aot_eager")
        else:
            pl_module.model.compile(backend="aot_eager")


def fit(folder: Path, corpus: Path, how: str, *args: str) -> Path:
    """Train eight steps, or what is left of them."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_it = {"class_path": f"{__name__}.Compile", "init_args": {"wrap": how == "wrapped"}}
    config = write_config(folder, corpus, [] if how == "plain" else [compile_it], accelerator="cpu")
    # Compiled dropout draws other numbers.
    calm = ["--model.config.hidden_dropout_prob", "0", "--model.config.attention_probs_dropout_prob", "0"]
    assert main(["fit", "--config", str(config), *calm, *args]) == 0
    assert bool(torch._dynamo.utils.counters["stats"].get("unique_graphs")) == (how != "plain")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def finished(slow, tmp_path_factory, corpus):
    return {how: fit(tmp_path_factory.mktemp(how), corpus, how) for how in ("plain", "wrapped")}


def assert_close(one: Path, two: Path) -> None:
    """Compiled code rounds otherwise, and nothing more."""
    ends = [load_plain(path) for path in (one, two)]
    assert [end["global_step"] for end in ends] == [8, 8]
    weights = [end["state_dict"] for end in ends]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("wrapped", "plain"), ("plain", "wrapped"), ("plain", "in place")])
def test_either_goes_on_from_the_other(tmp_path, corpus, finished, before, after):
    start = finished[before] / AMID
    assert not [name for name in load_plain(start)["state_dict"] if "_orig_mod" in name]
    assert_close(finished["plain"] / LAST, fit(tmp_path, corpus, after, "--ckpt_path", str(start)) / LAST)


@pytest.mark.slow
def test_names_that_a_compiler_left_are_understood(tmp_path, corpus, finished):
    """As other programs that use the module, or this one before, may have saved them."""
    content = load_plain(finished["plain"] / AMID)
    content["state_dict"] = {x.replace("model.", "model._orig_mod.", 1): y for x, y in content["state_dict"].items()}
    torch.save(content, tmp_path / "compiled.ckpt")
    resumed = fit(tmp_path / "runs", corpus, "plain", "--ckpt_path", str(tmp_path / "compiled.ckpt"))
    assert_close(finished["plain"] / LAST, resumed / LAST)


@pytest.mark.slow
def test_a_compiled_run_is_measured_as_a_plain_one(tmp_path, finished):
    tables = []
    for how in ("plain", "wrapped"):
        args = ["--ckpt_path", str(finished[how] / AMID), "--methods", "trained", "--length_ratios", "1", "4"]
        assert main(["extrapolate", *args, "--output_dir", str(tmp_path / how)]) == 0
        tables.append([(row["loss"], row["num_targets"]) for row in rows(tmp_path / how / "extrapolation.json")])
    assert tables[0] == [(pytest.approx(loss, rel=1e-4), targets) for loss, targets in tables[1]]


class Losses(Callback):
    """Notes the loss of each step."""

    noted: list[float] = []  # noqa: RUF012 - the command line makes the callback

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.noted.append(outputs["loss"].item())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_dropout_resumed_in_compiled_blocks_that_compute_weights_again(tmp_path, corpus, monkeypatch, backend):
    monkeypatch.setattr(blocked, "RECOMPUTE_FROM", 1)
    graphs, look_up = [], torch._dynamo.lookup_backend

    def noting(name):
        def compile_graph(graph, inputs, **options):
            graphs.append(str(graph.graph))
            return look_up(name)(graph, inputs, **options)

        return compile_graph

    monkeypatch.setattr(torch._dynamo, "lookup_backend", noting)

    def train(folder, *args):
        torch._dynamo.reset()  # a process of its own would compile anew
        Losses.noted.clear()
        compile_blocks = {"class_path": "callbacks.compilation.CompileBlocks", "init_args": {"backend": backend}}
        config = write_config(folder, corpus, [compile_blocks, {"class_path": f"{__name__}.Losses"}], accelerator="cpu")
        rates = [f"--model.config.{kind}_dropout_prob=0.1" for kind in ("hidden", "attention_probs")]
        assert main(["fit", "--config", str(config), *rates, *args]) == 0
        return load_plain(folder / LAST), list(Losses.noted)

    whole, losses = train(tmp_path / "whole")
    resumed, rest = train(tmp_path / "resumed", "--ckpt_path", str(tmp_path / "whole" / AMID))
    assert (len(losses), rest) == (8, losses[4:])
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    assert [graph for graph in graphs if "checkpoint" in graph and "dropout" in graph], "none computes weights again"
