"""What a run leaves for TensorBoard: charts with something in them, a figure per evaluation, a table of runs."""

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from gau_alpha.attention.method import AXES
from gau_alpha.cli import main

from .conftest import tiny_config

METRICS = ("loss", "perplexity", "accuracy")
MEASURED = (*METRICS, "attention_entropy", "near_share")


@pytest.fixture(scope="module")
def run(slow, tmp_path_factory, corpus):
    """A run that validates and evaluates every second of its four steps."""
    folder = tmp_path_factory.mktemp("tensorboard")
    callbacks = [
        {
            "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
            "init_args": {"every_n_train_steps": 2, "length_ratios": [1, 2, 16], "max_tokens": 512},
        },
        {"class_path": "callbacks.attention_entropy.AttentionEntropy", "init_args": {"every_n_train_steps": 1}},
    ]
    config = tiny_config(folder, corpus, max_steps=4, val_check_interval=2, callbacks=callbacks)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "tiny.yaml"), "--model.method", "cosscale"]) == 0
    events = EventAccumulator(str(folder / "run" / "first"))
    events.Reload()
    return folder / "run" / "first", events


def test_scalars_have_names_that_sort_and_no_chart_is_empty(run):
    _, events = run
    tags = sorted(set(events.Tags()["scalars"]) - {"epoch", "train/learning_rate"})
    lengths = [f"extrapolation/trained/{ratio}/{name}" for ratio in ("x001", "x002", "x016") for name in MEASURED]
    assert tags == sorted(
        [
            *lengths,
            "extrapolation/seconds",
            "extrapolation/share_of_time",
            *(f"validation/{name}" for name in METRICS),
            *(f"train/{name}" for name in METRICS),
            *(f"attention/entropy/{name}" for name in ("layer_00", "layer_01", "mean")),
        ]
    ), "and no hp_metric, which is always −1"
    assert [tag for tag in tags if tag.endswith("/perplexity") and "/x" in tag] == [
        f"extrapolation/trained/{ratio}/perplexity" for ratio in ("x001", "x002", "x016")
    ]
    for tag in tags:
        steps = [point.step for point in events.Scalars(tag)]
        if tag.startswith("extrapolation/"):
            assert steps == [2, 4], tag
        # TensorBoard draws no single point that is above 1: such a chart looks empty
        assert len(steps) >= 2, tag


def test_there_is_one_figure_per_evaluation(run):
    folder, events = run
    assert events.Tags()["images"] == ["extrapolation/perplexity"]
    figures = events.Images("extrapolation/perplexity")
    assert [figure.step for figure in figures] == [2, 4]
    assert sorted(path.name for path in (folder / "extrapolation").iterdir()) == ["step_2", "step_4"]
    assert all(figure.width <= 600 for figure in figures), "shown at 300 pixels, text must stay legible"


def test_the_table_of_runs_shows_the_method_in_words_and_numbers_beside_accuracies(run):
    _, events = run
    content = events.summary_metadata
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG].plugin_data.content)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert [values[axis] for axis in AXES] == ["CosScale", "NoScaling", "RoPE", "Full", "Softmax"]
    assert values["similarity.scale"] == 16.0
    assert values["position.base"] == 10_000
    assert (values["train_length"], values["hidden_size"], values["optimizer.learning_rate"]) == (16, 16, 1e-3)
    assert (values["optimizer"], values["schedule"], values["schedule.warmup"]) == ("AdamW", "Cosine", 0.1)
    assert start.group_name == "", "runs go by their folders' names, two of the same settings are two"
    # TensorBoard shows five columns at first, those that differ before all others
    shown = [column.name for column in experiment.hparam_infos if column.differs]
    assert sorted(shown) == sorted([*AXES[:4], "train_length"])
    # and takes the columns from one run of several
    named = {column.name for column in experiment.hparam_infos}
    assert named >= {*values, "visibility.radius", "visibility.sinks", "position.window", "scaling.base"}
    shown = [metric.name.tag for metric in experiment.metric_infos]
    assert {"validation/loss", "extrapolation/trained/x001/accuracy", "extrapolation/trained/x016/accuracy"} <= set(
        shown
    )
    assert set(shown) <= set(events.Tags()["scalars"]), "there is a number for each"


def test_hparams_yaml_says_the_same(run):
    folder, _ = run
    stored = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert (stored["similarity"], stored["similarity.scale"], stored["visibility"]) == ("CosScale", 16.0, "Full")
