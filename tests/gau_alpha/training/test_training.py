"""The parts of GAUAlphaModule that have an interface of their own; test_module.py and tests/cli test them together."""

import math
from types import SimpleNamespace

import pytest
import torch

from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.logging import TrainingLog
from gau_alpha.training.metrics import MaskedLMMetrics
from gau_alpha.training.schedules import Cosine, Linear, ResumableSchedule, count_steps


def trainer_for(steps):
    loop = SimpleNamespace(_combined_loader=object())
    return SimpleNamespace(estimated_stepping_batches=steps, fit_loop=loop, max_steps=-1, max_epochs=None)


def resumed(step, before, now, final=0.0, ceiling=1.0):
    """A run of ``before`` steps, saved after ``step`` of them, that goes on as one of ``now``."""
    schedule = ResumableSchedule(Linear(warmup=0.1, final=final))
    stored = {"total_steps": before, "rate_ceiling": ceiling}
    schedule.resume({"schedule": stored, "global_step": step}, trainer_for(now), learning_rate=1e-3)
    schedule.begin(trainer_for(now))
    return schedule


def test_a_run_of_the_same_length_goes_on_as_it_was():
    state = {"total_steps": 100, "rate_ceiling": 0.4, "stable_until": 0}
    assert resumed(60, 100, 100, ceiling=0.4).state() == state
    assert resumed(60, 100, 100).factor(60) == Linear(0.1).factor(60, 100)


def test_a_longer_run_stays_below_the_rate_that_it_was_saved_at():
    with pytest.warns(UserWarning, match="made for 100 optimizer steps, and is now for 400: from step 60"):
        longer = resumed(60, 100, 400)
    saved_at = Linear(0.1).factor(60, 100)
    assert longer.factor(60) == saved_at < Linear(0.1).factor(60, 400)
    assert longer.factor(390) == Linear(0.1).factor(390, 400) < saved_at
    with pytest.warns(UserWarning, match="made for 400"):  # and below the first run's when resumed again
        assert resumed(61, 400, 800, ceiling=longer.ceiling).factor(61) == saved_at


def test_within_the_warmup_the_new_curve_holds():
    assert resumed(9, 100, 400).factor(39) == Linear(0.1).factor(39, 400)


def test_a_finished_decay_to_zero_is_no_start():
    with pytest.raises(ValueError, match=r"ended at step 100 with a learning rate of 0.*: 400 steps would change"):
        resumed(100, 100, 400)


def test_a_checkpoint_from_before_schedules_were_kept():
    schedule = ResumableSchedule(Linear())
    schedule.resume({"global_step": 60}, trainer_for(400), learning_rate=1e-3)
    assert schedule.ceiling == 1


def test_counting_steps_leaves_no_loader_behind():
    trainer = trainer_for(7.0)
    assert count_steps(trainer) == 7
    assert trainer.fit_loop._combined_loader is None
    for unknown in (math.inf, -1):
        with pytest.raises(ValueError, match=r"set trainer\.max_steps"):
            count_steps(trainer_for(unknown))


class Noting(list):
    def log_metrics(self, values, step):
        self.append((step, values))


def at(step, first=True):
    """A trainer at an optimizer step that logs at every fourth, on the first of two processes or on the other."""
    strategy = SimpleNamespace(reduce=lambda value, reduce_op: 2 * value)  # both have counted the same
    return SimpleNamespace(
        global_step=step, log_every_n_steps=4, loggers=[Noting()], is_global_zero=first, strategy=strategy
    )


def counting(*batches):
    log = TrainingLog(SimpleNamespace(train_metrics=MaskedLMMetrics("train/")))
    for nll, correct, count in batches:
        log.metrics.add(torch.tensor(nll), torch.tensor(correct), torch.tensor(count))
    log.learning_rate = 0.25
    return log


def test_logs_when_due_and_counts_anew():
    log, early, due = counting((6.0, 1, 2), (2.0, 6, 6)), at(3), at(8)
    assert log.log_when_due(early) is None
    assert early.loggers == [[]]
    assert log.log_when_due(due) == 1.0
    [(step, values)] = due.loggers[0]
    assert (step, values["train/loss"], values["train/accuracy"]) == (8, 1.0, 7 / 8)
    assert values["train/learning_rate"] == 0.25
    assert log.metrics["loss"].count == 0


def test_metrics_put_in_later_are_those_that_are_logged():
    sizes = {"hidden_size": 8, "intermediate_size": 16, "attention_key_size": 8, "num_hidden_layers": 1}
    module = GAUAlphaModule(GAUAlphaConfig(20, **sizes), train_length=8)
    module.train_metrics = MaskedLMMetrics("mine/")
    module.train_metrics.add(torch.tensor(6.0), torch.tensor(1), torch.tensor(2))
    trainer = at(8)
    assert module._training_log.log_when_due(trainer) == 3.0
    [(_, values)] = trainer.loggers[0]
    assert values["mine/loss"] == 3.0


def test_never_is_never_due():
    log, trainer = counting((6.0, 1, 2)), at(8)
    trainer.log_every_n_steps = 0
    assert log.log_when_due(trainer) is None
    assert trainer.loggers == [[]]


def test_a_schedule_given_later_is_followed():
    sizes = {"hidden_size": 8, "intermediate_size": 16, "attention_key_size": 8, "num_hidden_layers": 1}
    module = GAUAlphaModule(GAUAlphaConfig(20, **sizes), train_length=8)
    assert isinstance(module.schedule, Cosine)
    module.schedule = Linear(warmup=0.0, final=0.5)
    schedule = module._resumable_schedule  # what configure_optimizers gives to the scheduler
    schedule.begin(trainer_for(10))
    assert schedule.factor(5) == 0.75


def test_an_interrupted_count_goes_on_once_and_on_one_process():
    state = counting((6.0, 1, 2)).state(at(3))
    logs = counting(), counting()
    for log, first in zip(logs, (True, False), strict=True):
        log.remember({"train_metrics": state})
        for _ in range(2):  # the second time there is nothing left to take up
            log.restore_metric_state(at(3, first))
    assert [int(log.metrics["loss"].count) for log in logs] == [4, 0]  # two processes, two targets each
    assert [float(log.metrics["loss"].total) for log in logs] == [12.0, 0.0]


def test_a_run_that_was_about_to_log_does():
    log, trainer = counting(), at(4)
    log.remember({"train_metrics": counting((6.0, 1, 2)).state(at(4))})
    log.restore_metric_state(trainer)
    [(step, values)] = trainer.loggers[0]
    assert (step, values["train/loss"]) == (4, 3.0)
    nothing, trainer = counting(), at(4)
    nothing.remember({"train_metrics": counting().state(at(4))})  # logged just before it was saved
    nothing.restore_metric_state(trainer)
    assert trainer.loggers == [[]]
