"""What lets a run be killed and resumed where it stopped; ``gau-alpha fit`` installs all of it, in this order."""

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import WeightAveraging

from callbacks.averaging import AverageFromTheFirstUpdate
from callbacks.mean_gradients import MeanGradients
from callbacks.nonfinite import Guard
from callbacks.recovery.identity import RunIdentity
from callbacks.recovery.preemption import CatchUpCallback, PreemptionCheckpoint
from callbacks.recovery.resume import AgreeOnResumePath, PurgeOrphanedEvents, ResumePendingValidation
from callbacks.recovery.seeding import DropoutSeed
from callbacks.recovery.stopping import EndOnSignal
from callbacks.recovery.timeout_hint import CollectiveTimeoutHint
from callbacks.throughput import ResumeClock, TrainingThroughput

__all__ = [
    "AgreeOnResumePath",
    "CatchUpCallback",
    "CollectiveTimeoutHint",
    "DropoutSeed",
    "EndOnSignal",
    "PreemptionCheckpoint",
    "PurgeOrphanedEvents",
    "ResumePendingValidation",
    "RunIdentity",
    "in_order",
    "installed_callbacks",
]

# Hooks run in the order of the trainer's list.
_BEFORE = (
    AgreeOnResumePath,  # before anything is written: a process that sees no checkpoint would purge what others resume
    RunIdentity,  # before anything else is written: it is listed as the run's
    PurgeOrphanedEvents,  # before anything is logged: what the others log belongs to the resumed run
    Guard,  # before anything counts, logs or saves a step that it refuses
    MeanGradients,  # before anything looks at gradients
    AverageFromTheFirstUpdate,  # before the average is used
    WeightAveraging,  # before anything evaluates the average of this step
    TrainingThroughput,  # before anything evaluates or saves: that is no time of training
)
# Between them: what the config names and what Lightning adds, ModelCheckpoint last.
_AFTER = (
    CollectiveTimeoutHint,
    DropoutSeed,  # after whatever draws random numbers before a batch: a resumed run would not draw them again
    EndOnSignal,  # after all others have started
    PreemptionCheckpoint,  # after whatever happens at the end of a step, ModelCheckpoint included: it is saved as done
    ResumePendingValidation,  # after all others have started, and signals are taken over: it validates when it starts
    ResumeClock,  # after whatever happens between two batches; TrainingThroughput adds it
)


def installed_callbacks(own: Iterable[Callback], resume_path: str | None) -> list[Callback]:
    """Add to a trainer's callbacks those that every run has.

    Args:
        own: What the config names and what Lightning adds. A Guard among them is not added again.
        resume_path: The checkpoint that ``fit`` resumes from, if any.

    Returns:
        All, in order.
    """
    own = list(own)
    installed = in_order(
        [
            *own,
            AgreeOnResumePath(resume_path),
            PurgeOrphanedEvents(resumes=resume_path is not None),
            *([] if any(isinstance(callback, Guard) for callback in own) else [Guard()]),
            MeanGradients(),
            AverageFromTheFirstUpdate(),
            CollectiveTimeoutHint(),
            DropoutSeed(),
            EndOnSignal(),
            PreemptionCheckpoint(),
            ResumePendingValidation(),
        ]
    )
    assert isinstance(installed[0], AgreeOnResumePath)
    assert isinstance(installed[-1], ResumePendingValidation)
    return installed


def in_order(callbacks: Iterable[Callback]) -> list[Callback]:
    """Sort callbacks as stated above; those between keep their order.

    Args:
        callbacks: A trainer's.
    """
    return sorted(callbacks, key=_place)


def _place(callback: Callback) -> int:
    before = next((place for place, kind in enumerate(_BEFORE) if isinstance(callback, kind)), len(_BEFORE))
    after = next((place for place, kind in enumerate(_AFTER, 1) if isinstance(callback, kind)), 0)
    return before + after
