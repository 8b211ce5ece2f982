"""The learning rate: its curve, and its course over a run that may be resumed with another number of steps."""

import math
from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gau_alpha.attention.strategy import init_parameters
from gau_alpha.checkpoints import check_form
from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.registry import public_path, shown


class Schedule(ABC):
    """The learning rate as a fraction of its peak: a pure function of the optimizer step.

    Args:
        warmup: Fraction of all steps in which the rate rises linearly from 0 to its peak.
        final: Fraction of the peak that the last step ends at.

    Raises:
        ValueError: If ``warmup`` or ``final`` is outside [0, 1].
    """

    def __init__(self, warmup: float = 0.1, final: float = 0.0) -> None:
        _require_fraction("warmup", warmup)
        _require_fraction("final", final)
        self.warmup = warmup
        self.final = final

    def factor(self, step: int, total_steps: int, stable_until: int = 0) -> float:
        """Compute the factor on the peak rate.

        Args:
            step: Optimizer steps done.
            total_steps: Optimizer steps of the whole run.
            stable_until: Step before which no decay has begun, where a run was resumed later than it would have.
        """
        warmup_steps = self.warmup * total_steps
        if step < warmup_steps:
            # The first step must move, so it is counted as done.
            return (step + 1) / (warmup_steps + 1)
        start = max(self.decay_start(total_steps), stable_until)
        if step < start:
            return 1.0
        progress = min(1.0, (step - start) / max(1.0, total_steps - start))
        return self.final + (1 - self.final) * self.fall(progress)

    def decay_start(self, total_steps: int) -> float:
        """Say after how many steps the rate begins to fall: at the end of the warm-up, unless overridden.

        Args:
            total_steps: Optimizer steps of the whole run.
        """
        return self.warmup * total_steps

    @abstractmethod
    def fall(self, progress: float) -> float:
        """Fall from 1 at ``progress`` 0 to 0 at ``progress`` 1."""

    def describe(self) -> dict[str, object]:
        """Say in plain data how to build this schedule."""
        cls = type(self)
        init_args = {name: getattr(self, name) for name in init_parameters(cls)}
        return {"class_path": public_path(cls), "init_args": init_args}


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)."""

    def fall(self, progress: float) -> float:
        """Fall as (1 + cos(π · progress)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * progress))


class Linear(Schedule):
    """Linear warm-up, then a straight line down to ``final``."""

    def fall(self, progress: float) -> float:
        """Fall as 1 − progress."""
        return 1 - progress


class WSD(Schedule):
    """Warm-up, a stable peak, then a decay as 1 − √progress.

    Hu et al. 2024, arXiv 2404.06395, section 4; the decay's shape: Hägele et al. 2024, arXiv 2405.18392, eq. 2. Any
    checkpoint of the stable part can be decayed from, to an end that is chosen then: resume it with another
    ``trainer.max_steps``.

    Args:
        warmup: Fraction of all steps in which the rate rises linearly from 0 to its peak.
        decay: Fraction of all steps, the last, in which it falls. A run that is resumed within them, from a checkpoint
            that had not begun to fall, falls from there.
        final: Fraction of the peak that the last step ends at.

    Raises:
        ValueError: If one is outside [0, 1], or ``warmup`` and ``decay`` together are above 1.
    """

    def __init__(self, warmup: float = 0.1, decay: float = 0.2, final: float = 0.0) -> None:
        super().__init__(warmup, final)
        _require_fraction("decay", decay)
        if warmup + decay > 1:
            raise ValueError(f"warmup {warmup} and decay {decay} are more than the whole run: together at most 1.")
        self.decay = decay

    def decay_start(self, total_steps: int) -> float:
        """Leave the last ``decay`` of all steps."""
        return (1 - self.decay) * total_steps

    def fall(self, progress: float) -> float:
        """Fall as 1 − √progress."""
        return 1 - math.sqrt(progress)


class ResumableSchedule:
    """A schedule that follows a changed number of steps, but never rises above the rate of a decay that has begun.

    Args:
        schedule: The curve.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.total_steps = 0
        self.ceiling = 1.0  # factor of the rate that a resumed run does not rise above
        self.stable_until = 0  # step of the checkpoint that a run of another length decays from

    def factor(self, step: int) -> float:
        """Compute the factor on the peak rate after so many optimizer steps."""
        return min(self.ceiling, self.schedule.factor(step, self.total_steps, self.stable_until))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps under ``schedule``: what the curve was made for."""
        return {"total_steps": self.total_steps, "rate_ceiling": self.ceiling, "stable_until": self.stable_until}

    def begin(self, trainer: Trainer) -> None:
        """Make the curve for the trainer's run.

        Raises:
            ValueError: If nothing says when the run ends.
        """
        self.total_steps = count_steps(trainer)

    def resume(self, checkpoint: dict[str, Any], trainer: Trainer, learning_rate: float) -> None:
        """Go on from a checkpoint's run in the trainer's, which may end elsewhere.

        Args:
            checkpoint: Holds ``schedule``, unless it is from before that was kept, and ``global_step``.
            trainer: Of the run that goes on.
            learning_rate: The rate at its peak, for messages.

        Raises:
            ValueError: If nothing says when the run ends, the rate had already come to 0, or the checkpoint's entry is
                not what ``state`` returns.
        """
        stored = checkpoint.get("schedule")
        if stored is None:
            return
        if not isinstance(stored, dict):
            raise ValueError(f"The checkpoint's schedule must hold entries by name, got {shown(stored)}.")
        require_whole("The checkpoint's schedule.total_steps", stored.get("total_steps"), least=0)
        require_number("The checkpoint's schedule.rate_ceiling", stored.get("rate_ceiling"), least=0, most=1)
        require_whole("The checkpoint's schedule.stable_until", stored.get("stable_until", 0), least=0)
        self.ceiling = float(stored["rate_ceiling"])
        self.stable_until = int(stored.get("stable_until", 0))
        before, now = int(stored["total_steps"]), count_steps(trainer)
        step = int(checkpoint["global_step"])
        if before == now or step < self.schedule.warmup * before:
            return
        if step < max(self.schedule.decay_start(before), self.stable_until):
            self.stable_until = step
            falls = max(step, math.ceil(self.schedule.decay_start(now)))
            rank_zero_warn(
                f"The schedule was made for {before} optimizer steps, and is now for {now}: the learning rate, at its "
                f"peak at step {step}, falls from step {falls} on."
            )
            return
        self.ceiling = min(self.ceiling, self.schedule.factor(step, before, self.stable_until))
        if self.ceiling <= 0:
            raise ValueError(
                f"The checkpoint's schedule ended at step {before} with a learning rate of 0, above which a resumed "
                f"run does not rise: {now} steps would change nothing. Start a new run from its weights with "
                "--model.init_from, go on from an earlier checkpoint, or set the schedule's `final` above 0."
            )
        rank_zero_warn(
            f"The schedule was made for {before} optimizer steps, and is now for {now}: from step {step} the learning "
            f"rate follows the new curve, but stays at or below {self.ceiling * learning_rate:.3g}."
        )


class FollowingSchedule(LambdaLR):
    """Multiplies the rates of an optimizer by the factor of a schedule, and takes up only numbers of a checkpoint.

    torch would let a checkpoint replace any of its attributes.

    Args:
        optimizer: Its rates are at their peak.
        schedule: Has begun.
    """

    def __init__(self, optimizer: Optimizer, schedule: ResumableSchedule) -> None:
        # a function: of any other callable torch would put the attributes into checkpoints
        super().__init__(optimizer, lambda step: schedule.factor(step))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` remembered.

        Args:
            state_dict: Of such a schedule.

        Raises:
            ValueError: If an entry is not what it should be.
        """
        where, own = "The checkpoint's lr_schedulers", self.state_dict()
        check_form(state_dict, own, where)
        known = {name: x for name, x in state_dict.items() if name in own}
        for name in ("last_epoch", "_step_count"):
            require_whole(f"{where}.{name}", known.get(name), least=0)
        super().load_state_dict({**own, **known, "lr_lambdas": own["lr_lambdas"]})


def _require_fraction(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a fraction from 0 to 1, got {shown(value)}.")


def count_steps(trainer: Trainer) -> int:
    """Count the optimizer steps of the whole run.

    Args:
        trainer: Given model and data.

    Raises:
        ValueError: If nothing says when the run ends.
    """
    steps = trainer.estimated_stepping_batches
    if not 0 <= steps < math.inf:
        endless = trainer.max_steps == -1 and trainer.max_epochs in (-1, None)
        why = "neither max_steps nor max_epochs says where the run ends" if endless else "the data has no length"
        raise ValueError(
            f"The schedule needs to know how many steps there will be, and {why}: set trainer.max_steps, which "
            f"trainer.max_time may cut short."
        )
    # For the answer Lightning may have made the training loader, too early: the position in a checkpoint is only
    # given to a loader that is made after the checkpoint's loops are read (Lightning's issue 20550). Without one it
    # makes another.
    trainer.fit_loop._combined_loader = None
    return int(steps)
