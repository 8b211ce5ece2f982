"""What every run is given: each callback once, and in the stated order."""

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.averaging import AverageFromTheFirstUpdate
from callbacks.mean_gradients import MeanGradients
from callbacks.nonfinite import Guard
from callbacks.recovery import (
    AgreeOnResumePath,
    CatchUpCallback,
    CollectiveTimeoutHint,
    DropoutSeed,
    EndOnSignal,
    PreemptionCheckpoint,
    PurgeOrphanedEvents,
    ResumePendingValidation,
    in_order,
    installed_callbacks,
)

FIRST = [AgreeOnResumePath, PurgeOrphanedEvents, Guard, MeanGradients, AverageFromTheFirstUpdate]
LAST = [CollectiveTimeoutHint, DropoutSeed, EndOnSignal, PreemptionCheckpoint, ResumePendingValidation]


def test_own_callbacks_come_between():
    own = [Callback(), ModelCheckpoint()]
    installed = installed_callbacks(own, None)
    assert [type(one) for one in installed] == [*FIRST, Callback, ModelCheckpoint, *LAST]
    assert installed[len(FIRST) : len(FIRST) + 2] == own


def test_a_guard_of_ones_own_is_the_only_one():
    own = Guard(max_skips=3)
    installed = installed_callbacks([ModelCheckpoint(), own], "last.ckpt")
    assert [one for one in installed if isinstance(one, Guard)] == [own]
    assert installed[0].path == "last.ckpt"


def test_what_lightning_appends_later_goes_between():
    """It sorts all checkpoints to the end where a module has callbacks of its own."""
    installed = installed_callbacks([], None)
    saver, other = ModelCheckpoint(), Callback()
    again = in_order([*installed, other, saver])
    assert again == [*installed[: len(FIRST)], other, saver, *installed[len(FIRST) :]]


def test_only_some_catch_up():
    kinds = {type(one) for one in installed_callbacks([], None) if isinstance(one, CatchUpCallback)}
    assert kinds == {PurgeOrphanedEvents, ResumePendingValidation}
