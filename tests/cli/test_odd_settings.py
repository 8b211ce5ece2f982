"""Odd values on the command line and in YAML files: one message and code 2, soon, whatever they are."""

import logging
import shlex
import warnings

import pytest
import yaml
from refusals import refused

from gau_alpha.cli import main
from gau_alpha.cli.commands import COMMANDS

pytestmark = pytest.mark.slow

FLAGS = """
--trainer.devices 0
--trainer.devices -1
--trainer.devices 1.5
--trainer.devices []
--trainer.devices 1000
--trainer.devices 1000000000000000000000000000000
--trainer.devices [1,2]
--trainer.num_nodes 0
--trainer.num_nodes -1
--trainer.accelerator x
--trainer.accelerator tpu
--trainer.strategy x
--trainer.strategy deepspeed
--trainer.precision 17
--trainer.precision transformer-engine
--trainer.max_steps -2
--trainer.max_steps 1.5
--trainer.max_epochs -2
--trainer.gradient_clip_val -1
--trainer.gradient_clip_val .nan
--trainer.gradient_clip_algorithm x
--trainer.accumulate_grad_batches 0
--trainer.accumulate_grad_batches -1
--trainer.log_every_n_steps 1.5
--trainer.val_check_interval -1
--trainer.val_check_interval 0
--trainer.val_check_interval 1.5
--trainer.val_check_interval 1000000
--trainer.check_val_every_n_epoch 0
--trainer.limit_train_batches -1
--trainer.limit_train_batches .nan
--trainer.limit_val_batches 2.5
--trainer.overfit_batches -1
--trainer.fast_dev_run -1
--trainer.max_time x
--trainer.max_time '{"years": 1}'
--trainer.profiler x
--trainer.plugins 7
--trainer.callbacks [1]
--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor x
--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor x --trainer.callbacks.mode u
--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint --trainer.callbacks.save_top_k -7
--trainer.callbacks+=callbacks.nonfinite.Guard --trainer.callbacks.max_skips -1
--trainer.logger x
--trainer.default_root_dir /proc/none
--trainer.unknown 1
--trainer 3
--trainer null
--model 3
--model null
--data 3
--data []
--data nowhere.yaml
--config nowhere.yaml
--config /
--seed_everything -1
--seed_everything 1.5
--seed_everything 18446744073709551616
--ckpt_path [1]
--ckpt_path '[{a: 1}]'
--ckpt_path nowhere.ckpt
--ckpt_path /
--model.optimizer.learning_rate .nan
--model.optimizer.learning_rate .inf
--model.optimizer.learning_rate null
--model.optimizer.learning_rate 0
--model.optimizer.weight_decay -0.1
--model.optimizer.weight_decay .nan
--model.optimizer.betas [1.0,0.9]
--model.optimizer.betas [.nan,0.9]
--model.optimizer.betas [-1,0.9]
--model.optimizer.betas null
--model.kernel x
--model.config.hidden_size 1000000000000
--model.config.hidden_size x
--model.config.hidden_size 1.5
--model.config.hidden_size true
--model.config.num_hidden_layers 1000000000
--model.config.hidden_dropout_prob null
--model.config.hidden_dropout_prob .nan
--model.config.norm_eps null
--model.config.norm_eps .inf
--model.config null
--model.method 3
--model.method '{"x": 1}'
--model.method.scaling LogLength --model.method.scaling.base 1
--model.method.scaling LogLength --model.method.scaling.base .nan
--model.method.position RandomizedPositions --model.method.position.target_length 1000000000000
--model.method.visibility Window --model.method.visibility.radius -3
--model.method.similarity CosScale --model.method.similarity.scale .inf
--model.schedule Cosine --model.schedule.warmup .nan
--model.init_from nowhere
--model.init_from '{a: 1}'
--data.train_length 1 --model.method ssmax
--data.train_length 1 --model.method infoscale
--data.train_length -16
--data.train_length 1000000000000000000000
--data.batch_size 0
--data.seed 36893488147419103232
""".strip().splitlines()

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
FILES = {
    "tab": "trainer:\n\tmax_steps: 1",
    "two colons": "model: b: c",
    "two documents": "model: {}\n---\nmodel: {}",
    "laughs": LAUGHS,
    "cycle": "model: &m {config: *m}",
    "tag": "model: !!python/object/apply:os.getcwd []",
    "twice": "model: {}\nmodel: {}",
    "deep": "model: " + "[" * 1000,
    "number": "seed_everything: " + "9" * 5000,
    "list": "[]",
    "text": "hello",
    "checkpoint 7": "ckpt_path: 7",
    "checkpoint mapping": "ckpt_path: {a: 1}",
    "checkpoint list": "ckpt_path: [[1]]",
    "null character": 'ckpt_path: "a\\0b"',
    "long name": f"ckpt_path: {'x' * 5000}",
    "long start": f"model: {{init_from: {'x' * 5000}}}",
    "start 7": "model: {init_from: 7}",
    "start mapping": "model: {init_from: {a: 1}}",
    "model 3": "model: 3",
    "model list": "model: [1]",
    "data list": "data: []",
    "data 3": "data: 3",
    "trainer 3": "trainer: 3",
    "trainer list": "trainer: []",
    "unknown section": "trainers: {max_steps: 1}",
    "method 3": "model: {method: 3}",
    "head 3": "model: {head: 3}",
    "head list": "model: {head: [1]}",
    "key 3": "3: 4",
    "rate": "model: {optimizer: {class_path: AdamW, init_args: {learning_rate: null}}}",
    "callbacks": "trainer: {callbacks: [{class_path: 3}]}",
    "arguments": "trainer: {callbacks: [{class_path: callbacks.nonfinite.Guard, init_args: [1]}]}",
    "accumulation": "trainer: {accumulate_grad_batches: 0}",
}
BROKEN = "a:\n\tb: 1\n"


@pytest.fixture(scope="module")
def plain(run, tmp_path_factory):
    """The config of a run of one step that leaves nothing."""
    config = yaml.safe_load(run.config.read_text())
    config["trainer"] |= {"logger": False, "callbacks": [], "enable_checkpointing": False, "max_steps": 1}
    path = tmp_path_factory.mktemp("plain") / "plain.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("flags", FLAGS)
def test_flags(plain, capsys, flags):
    refused(capsys, ["fit", "--config", str(plain), *shlex.split(flags)])


@pytest.mark.parametrize("name", FILES)
def test_config_file(plain, capsys, tmp_path, name):
    (tmp_path / "odd.yaml").write_text(FILES[name])
    error = refused(capsys, ["fit", "--config", str(plain), "--config", str(tmp_path / "odd.yaml")])
    assert len(error) < 10_000


@pytest.mark.parametrize(
    "args",
    [
        ["fit", "--config", "broken.yaml"],
        ["fit", "--config=broken"],
        ["fit", "-c", "broken"],
        ["fit", "--config", "outer.yaml"],
        ["fit", "--model", "broken"],
        ["fit", "--data", "broken"],
        ["fit", "--trainer", "broken"],
        ["fit", "--trainer=broken.yaml"],
        ["fit", "--model.method", "broken.yaml"],
        ["validate", "--config", "broken.yaml"],
        ["extrapolate", "--config", "broken.yaml"],
        ["tokenizer", "train", "--config", "broken.yaml"],
        ["methods", "broken.yaml"],
    ],
    ids=" ".join,
)
def test_file_and_line_are_named(capsys, tmp_path, args):
    for name in ("broken", "inner/broken.yaml", "broken.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(BROKEN)
    (tmp_path / "outer.yaml").write_text("data: inner/data.yaml\n")
    (tmp_path / "inner" / "data.yaml").write_text("class_path: x\ninit_args: {source: broken.yaml}\n")
    error = refused(capsys, args)
    assert ("inner/broken.yaml" if "outer.yaml" in args else "broken") in error
    assert "line 2" in error


def test_a_value_is_parsed_within_limits(plain, capsys):
    laughs = "{" + LAUGHS.strip().replace("\n", ", ") + "}"
    refused(capsys, ["fit", "--config", str(plain), "--model.method", laughs])
    refused(capsys, ["fit", "--config", str(plain), "--trainer.callbacks", "[" * 5000])


def test_messages_are_shown_and_not_obeyed(plain, capsys):
    assert "\\x1b[31m" in refused(capsys, ["\x1b[31mfit"])
    assert "\\x1b[31m" in refused(capsys, ["fit", "--config", str(plain), "--model.kernel", "\x1b[31m"])
    assert "\\x1b[31m" in refused(capsys, ["fit", "--config", str(plain), "--\x1b[31m", "1"])


def test_warnings_and_log_lines_are_shown_and_not_obeyed(monkeypatch, capsys, caplog):
    def command(args):
        warnings.warn("\x1b[31mred", stacklevel=1)
        logging.getLogger("lightning.pytorch").warning("%s", "\x1b[31mred")
        return 0

    monkeypatch.setitem(COMMANDS, "methods", command)
    with pytest.warns(UserWarning, match=r"^\\x1b\[31mred"):
        assert main(["methods"]) == 0
    assert caplog.messages == ["\\x1b[31mred"]
    logging.getLogger("lightning.pytorch").warning("%s", "\x1b")  # as before
    assert caplog.messages[1:] == ["\x1b"]
