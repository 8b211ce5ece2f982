"""Every mistake ends in one message and exit code 2, without a traceback."""

import json

import pytest
import torch
import yaml
from refusals import refused
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from gau_alpha.cli import main


def fit(run, **data):
    """Arguments of a fit whose data differs from the run's."""
    config = yaml.safe_load(run.config.read_text())
    config["data"]["init_args"] |= data
    config["trainer"] |= {"logger": False, "callbacks": [], "enable_checkpointing": False, "max_steps": 1}
    path = run.config.parent / "mistake.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["fit", "--config", str(path)]


def text_files(*paths):
    return {"source": {"class_path": "datamodules.TextFiles", "init_args": {"paths": [str(path) for path in paths]}}}


def empty_corpus(run, tmp_path):
    (tmp_path / "a.txt").write_text("")
    return fit(run, **text_files(tmp_path / "a.txt"))


def short_corpus(run, tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt").write_text("de")
    return fit(run, **text_files(tmp_path))


def missing_field(run, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": "text"}) + "\n")
    source = {"class_path": "datamodules.JsonLines", "init_args": {"paths": [str(tmp_path / "a.jsonl")]}}
    return fit(run, source=source)


def not_utf8(run, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"gar\xe7on")
    return fit(run, **text_files(tmp_path))


def tokenizer_without_mask(run, tmp_path):
    Tokenizer(WordLevel({"[PAD]": 0, "a": 1}, "a")).save(str(tmp_path / "t.json"))
    init_args = {"path": str(tmp_path / "t.json")}
    return fit(run, tokenizer={"class_path": "datamodules.TokenizerFile", "init_args": init_args})


def source_as_data_module(run, tmp_path):
    return ["fit", "--data", "datamodules.TextFiles"]


def unknown_strategy(run, tmp_path):
    return [*fit(run), "--model.method.scaling", "InfoScal"]


def config_that_is_a_list(run, tmp_path):
    (tmp_path / "m.yaml").write_text("model: {config: []}\n")
    return [*fit(run), "--config", str(tmp_path / "m.yaml")]


def unknown_strategy_in_yaml(run, tmp_path):
    (tmp_path / "m.yaml").write_text("model: {method: {similarity: CosineScale}}\n")
    return [*fit(run), "--config", str(tmp_path / "m.yaml")]


def unknown_command(run, tmp_path):
    return ["train"]


def zero_steps(run, tmp_path):
    return [*fit(run), "--trainer.max_steps", "0"]


def no_checkpoint(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(tmp_path / "no.ckpt")]


def no_path_at_all(run, tmp_path):
    return ["extrapolate"]


def text_as_checkpoint(run, tmp_path):
    (tmp_path / "no.ckpt").write_text("hello")
    return ["extrapolate", "--ckpt_path", str(tmp_path / "no.ckpt")]


def another_checkpoint(run, tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {"depth": 3}}, tmp_path / "other.ckpt")
    return ["validate", "--ckpt_path", str(tmp_path / "other.ckpt")]


def another_vocabulary(run, tmp_path):
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, **{letter: 3 + i for i, letter in enumerate("abcdefgh")}}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.save(str(tmp_path / "t.json"))
    init_args = {"path": str(tmp_path / "t.json")}
    config = tmp_path / "t.yaml"
    tokenizer = {"class_path": "datamodules.TokenizerFile", "init_args": init_args}
    config.write_text(yaml.safe_dump({"data": {"init_args": {"tokenizer": tokenizer}}}))
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--config", str(config)]


def vocabulary_of_a_resumed_run(run, tmp_path):
    args = another_vocabulary(run, tmp_path)
    return ["validate", "--config", str(run.config), *args[1:]]


def another_train_length(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--data.train_length", "32"]


def train_length_when_validating(run, tmp_path):
    return ["validate", "--ckpt_path", str(run.checkpoint), "--data.train_length", "32"]


def no_long_document(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--length_ratios", "5000"]


def unknown_method(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "infoscal"]


def unknown_protocol(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--protocol", "mean"]


def no_calibration(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "calibrated"]


def calibration_of_another_checkpoint(run, tmp_path):
    content = {
        "method": "trained",
        "scaling": "CalibratedScale",
        "provenance": {"checkpoint_sha256": "0", "documents": []},
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "calibrated"]
    return [*args, "--calibrations", str(tmp_path / "c.json")]


def calibrating_a_window(run, tmp_path):
    return ["calibrate", "--ckpt_path", str(run.checkpoint), "--method", "windowed", "--length_ratios", "1", "4"]


def calibrating_two_checkpoints(run, tmp_path):
    return ["calibrate", "--ckpt_path", str(run.checkpoint), str(run.checkpoint)]


def positions_of_mlm(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--positions_per_document", "4"]


def unknown_span_position(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--span_position", "last"]


def unknown_baseline(run, tmp_path):
    return ["extrapolate", "--ckpt_path", str(run.checkpoint), "--methods", "trained", "--baseline", "softmax"]


def no_data(run, tmp_path):
    return ["fit", "--trainer.max_steps", "1"]


MISTAKES = {
    empty_corpus: ["TextFiles", "no text"],
    short_corpus: ["train_length=16", "5 tokens"],
    missing_field: ["a.jsonl", "line 1", "'text'"],
    not_utf8: ["latin.txt", "3"],
    tokenizer_without_mask: ["t.json", "[MASK]"],
    source_as_data_module: ["datamodules.TextFiles", "StreamingTextDataModule", "--data.source"],
    unknown_strategy: ["InfoScal", "LogLength", "CosScale"],
    config_that_is_a_list: ["model.config", "list"],
    unknown_strategy_in_yaml: ["CosineScale", "LogLength", "CosScale"],
    unknown_command: ["'train'", "extrapolate"],
    zero_steps: ["max_steps", "at least 1"],
    no_checkpoint: ["no.ckpt"],
    no_path_at_all: ["ckpt_path"],
    text_as_checkpoint: ["no.ckpt", "not a checkpoint"],
    another_checkpoint: ["other.ckpt", "not a checkpoint of a GAUAlphaModule"],
    another_vocabulary: ["tokenizer", "ByteTokenizer", "--allow_mismatch"],
    vocabulary_of_a_resumed_run: ["tokenizer", "ByteTokenizer", "--allow_mismatch"],
    another_train_length: ["16", "32", "--length_ratios"],
    train_length_when_validating: ["train_length", "16", "32"],
    no_long_document: ["80000", "longest"],
    unknown_method: ["'infoscal'", "cosscale_infoscale"],
    unknown_protocol: ["'mean'", "mlm"],
    no_calibration: ["last.calibrated.json", "gau-alpha calibrate"],
    calibration_of_another_checkpoint: ["c.json", "gau-alpha calibrate --ckpt_path", "last.ckpt"],
    calibrating_a_window: ["Window(radius=8)", "nothing to calibrate"],
    calibrating_two_checkpoints: ["got 2"],
    positions_of_mlm: ["positions_per_document", "single-mask"],
    unknown_span_position: ["'last'", "aligned"],
    unknown_baseline: ["baseline='softmax'", "trained"],
    no_data: ["data"],
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_mistake(run, tmp_path, capsys, mistake):
    error = refused(capsys, mistake(run, tmp_path))
    missing = [word for word in MISTAKES[mistake] if word not in error]
    assert not missing, error


def test_a_length_that_no_document_reaches_is_reported_and_the_others_measured(run, tmp_path):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "trained", "--length_ratios", "1", "5000"]) == 0
    rows = json.loads((tmp_path / "extrapolation.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["ok", "no documents"]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--data.init_args.masking.init_args.rate", "7", "rate=7.0 must lie in (0, 1]. 0.15 is usual."),
        ("--data.init_args.source.init_args.paths", "[]", "paths=[] names no file."),
        ("--model.method.scaling", '{"class_path": "InfoScale", "init_args": {"minimum": -3}}', "got -3.0"),
    ],
)
def test_what_a_class_refuses_is_said_without_all_that_was_tried(run, capsys, option, value, says):
    assert main([*fit(run), option, value]) == 2
    error = capsys.readouterr().err
    assert says in error
    (message,) = (line for line in error.splitlines() if line.startswith("gau-alpha: error: "))
    assert says in message, "first"
    for dump in ("Union", "Given value", "Namespace("):
        assert dump not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["fit", "extrapolate"])
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_an_accelerator_that_is_not_there(run, capsys, command, accelerator):
    args = fit(run) if command == "fit" else ["extrapolate", "--ckpt_path", str(run.checkpoint)]
    assert main([*args, "--trainer.accelerator", accelerator]) == 2
    error = capsys.readouterr().err
    assert "gau-alpha: error: The trainer can't be built as section trainer says" in error
    assert "Traceback" not in error
