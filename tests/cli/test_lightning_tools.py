"""Lightning's own tools on our modules: what leaves a run as it is, to the last bit, and what each one does."""

import pytest
import torch
import yaml
from process_harness import STATE, differences, logged_points

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main
from gau_alpha.training.module import GAUAlphaModule

pytestmark = pytest.mark.slow

CALLBACK = "--trainer.callbacks+=lightning.pytorch.callbacks."
EARLY = f"{CALLBACK}EarlyStopping --trainer.callbacks.monitor validation/loss --trainer.callbacks.patience 1"
STEPS = 8  # of the run that all are compared with: two epochs of four


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    """A config of two short epochs."""
    config = yaml.safe_load(run.config.read_text())
    config["trainer"] |= {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 4, "val_check_interval": 2}
    config["trainer"]["callbacks"][0]["init_args"] |= {
        "every_n_train_steps": 2,
        "save_top_k": -1,
        "enable_version_counter": False,
    }
    path = tmp_path_factory.mktemp("base") / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fit(base, folder, flags="", *more, config=None):
    place = ["--trainer.logger.save_dir", str(folder), "--trainer.default_root_dir", str(folder)]
    assert main(["fit", "--config", str(config or base), *place, *flags.split(), *more]) == 0
    return folder / "run/first/checkpoints"


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return fit(base, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "flags",
    [
        EARLY,
        f"{CALLBACK}LearningRateMonitor",
        f"{CALLBACK}DeviceStatsMonitor",
        "--trainer.profiler simple",
        "--trainer.profiler advanced",
        "--trainer.profiler pytorch",
        "--trainer.detect_anomaly true",
        "--trainer.reload_dataloaders_every_n_epochs 1",
        "--trainer.limit_val_batches 0.5",
        "--trainer.limit_val_batches 0",
        "--trainer.val_check_interval 0.25",
        "--trainer.max_time 01:00:00:00",
    ],
)
def test_the_run_ends_in_the_same_state(base, plain, tmp_path, flags):
    last = fit(base, tmp_path, flags) / "last.ckpt"
    found = differences(plain / "last.ckpt", last)
    assert not found
    assert read_checkpoint(last)["global_step"] == STEPS


def test_what_is_compared_can_differ(base, plain, tmp_path):
    last = fit(base, tmp_path, "--seed_everything 2") / "last.ckpt"
    assert "state_dict" in differences(plain / "last.ckpt", last)
    assert "state_dict" in STATE


@pytest.mark.parametrize("flags", ["--trainer.reload_dataloaders_every_n_epochs 1", EARLY])
def test_a_resumed_run_ends_in_the_same_state(base, plain, tmp_path, flags):
    (early,) = fit(base, tmp_path / "a", flags, "--trainer.limit_val_batches", "1").glob("*-step=6.ckpt")
    again = fit(base, tmp_path / "b", flags, "--ckpt_path", str(early))
    assert not differences(plain / "last.ckpt", again / "last.ckpt")


def test_config_that_is_printed_is_the_run(base, plain, tmp_path, capsys):
    place = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(base), *place, "--print_config"])
    assert ended.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert main(["fit", "--config", str(printed)]) == 0
    assert not differences(plain / "last.ckpt", tmp_path / "run/first/checkpoints/last.ckpt")


@pytest.mark.parametrize(("batches", "steps"), [("true", 1), ("2", 2)])
def test_fast_dev_run_leaves_nothing(base, tmp_path, caplog, batches, steps):
    with caplog.at_level("INFO"):
        folder = fit(base, tmp_path, f"--trainer.fast_dev_run {batches}")
    assert f"`max_steps={steps}` reached" in caplog.text
    assert not folder.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "checkpoints/last.ckpt"], "callbacks"


@pytest.mark.parametrize(
    ("limit", "steps"), [("overfit_batches 3", 6), ("overfit_batches 0.1", 28), ("limit_train_batches 0.02", 4)]
)
def test_limits_count_batches_or_shares_of_the_data(base, tmp_path, limit, steps):
    """577 rows are 145 batches: 2 % are 2, 10 % are 14."""
    last = fit(base, tmp_path, f"--trainer.{limit} --trainer.val_check_interval 1.0") / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == steps


@pytest.mark.parametrize("limit", ["1", "0.5"])
def test_other_commands_are_limited_too(plain, limit):
    seen, step = [], GAUAlphaModule.test_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GAUAlphaModule, "test_step", lambda *args, **kwargs: (seen.append(1), step(*args, **kwargs))[1])
        assert main(["test", "--ckpt_path", str(plain / "last.ckpt"), "--trainer.limit_test_batches", limit]) == 0
    assert len(seen) == {"1": 1, "0.5": 6}[limit]


def test_a_limit_of_nothing_is_explained(base, tmp_path, capsys):
    args = ["fit", "--config", str(base), "--trainer.limit_train_batches", "0.0001"]
    assert main([*args, "--trainer.logger.save_dir", str(tmp_path)]) == 2
    assert "limit_train_batches" in capsys.readouterr().err


def test_validations_at_shares_of_an_epoch(base, tmp_path):
    checkpoints = fit(base, tmp_path, "--trainer.val_check_interval 0.25")
    points = logged_points(checkpoints.parent)
    assert sorted(step for tag, step in points if tag == "validation/loss") == list(range(1, STEPS + 1))


def test_early_stopping_stops_and_a_resumed_run_does_not_go_on(base, tmp_path):
    flags = f"{EARLY} --trainer.callbacks.min_delta 100"
    checkpoints = fit(base, tmp_path, flags)
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 4  # the second validation is no better
    fit(base, tmp_path, flags, "--auto_resume", "true")
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 4


def test_the_monitor_tells_the_rate_of_the_step_to_come(base, tmp_path):
    points = logged_points(fit(base, tmp_path, f"{CALLBACK}LearningRateMonitor").parent)
    monitored, own = (
        {step: x for (tag, step), x in points.items() if tag == name} for name in ("lr-AdamW/pg1", LOGGED)
    )
    assert set(own) == set(range(1, STEPS + 1))
    assert {step + 1: rate for step, rate in monitored.items()} == own


LOGGED = "train/learning_rate"


@pytest.mark.parametrize("name", ["LearningRateMonitor", "DeviceStatsMonitor"])
def test_what_logs_wants_a_logger(base, tmp_path, capsys, name):
    flags = f"{CALLBACK}{name} --trainer.logger false --trainer.default_root_dir {tmp_path}"
    assert main(["fit", "--config", str(base), *flags.split()]) == 2
    assert f"Cannot use `{name}` callback with `Trainer" in capsys.readouterr().err


def test_device_stats_are_logged(base, tmp_path):
    points = logged_points(fit(base, tmp_path, f"{CALLBACK}DeviceStatsMonitor").parent)
    assert any(tag.startswith("DeviceStatsMonitor.on_train_batch_start/cpu") for tag, _ in points)


@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_a_profiler_tells_of_our_step(base, tmp_path, caplog, capsys, profiler):
    with caplog.at_level("INFO"):
        fit(base, tmp_path, f"--trainer.profiler {profiler}")
    told = {"pytorch": "[LightningModule]GAUAlp"}.get(profiler, "[LightningModule]GAUAlphaModule.optimizer_step")
    assert told in caplog.text + capsys.readouterr().out


def test_barebones_trains_and_leaves_its_record_alone(base, tmp_path, caplog, capsys):
    config = yaml.safe_load(base.read_text())
    off = ("logger", "callbacks", "enable_progress_bar", "enable_model_summary", "log_every_n_steps")
    kept = {name: value for name, value in config["trainer"].items() if name not in (*off, "limit_val_batches")}
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump({**config, "trainer": {**kept, "default_root_dir": str(tmp_path / "out")}}))
    with caplog.at_level("INFO"):
        assert main(["fit", "--config", str(path), "--trainer.barebones", "true"]) == 0
    assert "`max_epochs=2` reached" in caplog.text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.yaml", "run.json"}
    assert main(["fit", "--config", str(base), "--trainer.barebones", "true"]) == 2
    assert "it is disabled in barebones mode" in capsys.readouterr().err


def test_time_that_is_up_ends_a_run_and_a_resumed_one_at_once(base, tmp_path, caplog):
    args = "--trainer.max_epochs -1 --trainer.max_steps 1000000 --trainer.max_time"
    with caplog.at_level("INFO"):
        checkpoints = fit(base, tmp_path, f"{args} 00:00:00:01")
    assert "Time limit reached" in caplog.text
    step = read_checkpoint(checkpoints / "last.ckpt")["global_step"]
    assert 0 < step < 1_000_000
    fit(base, tmp_path, f"{args} 00:00:00:01 --auto_resume true")
    resumed = read_checkpoint(checkpoints / "last.ckpt")["global_step"]
    assert resumed < step + 5, "time is looked at when a step ends"
    fit(base, tmp_path, f"{args} 00:00:00:03 --auto_resume true")
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] > resumed


def test_anomalies_are_detected(base, tmp_path):
    """In the backward pass; the guard looks at what comes out of it."""
    seen = []

    class Noting(torch.autograd.detect_anomaly):
        def __init__(self, *args, **kwargs):
            seen.append(args)
            super().__init__(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "set_detect_anomaly", Noting)
        fit(base, tmp_path, "--trainer.detect_anomaly true")
    assert seen


@pytest.mark.parametrize("name", ["PL_FIT__TRAINER__MAX_STEPS", "PL_FIT__MODEL__METHOD"])
def test_environment_variables_are_refused(base, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv(name, "3")
    assert main(["fit", "--config", str(base), "--trainer.default_root_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "--" + name.removeprefix("PL_FIT__").lower().replace("__", ".") in error
    monkeypatch.delenv(name)
    monkeypatch.setenv("PL_TEST__TRAINER__MAX_STEPS", "3")  # of another command
    fit(base, tmp_path)
