"""The calibration of a checkpoint as a test that Lightning runs."""

from contextlib import nullcontext
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.extrapolation.calibrate import calibrate
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.entrants import Entrant
from gau_alpha.extrapolation.report import progress_bar
from gau_alpha.extrapolation.study import open_documents


class CalibrationRun(LightningModule):
    """Calibrates in a test of one step, so that Lightning sets up device and precision.

    Every process does the same work and comes to the same table.

    Args:
        entrant: The checkpoint.
        name: Name of the method to calibrate.
        method: The method.
        datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
        options: Arguments of ``calibrate``.
    """

    def __init__(
        self,
        entrant: Entrant,
        name: str,
        method: AttentionMethod,
        datamodule: LightningDataModule,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.entrant = entrant
        self.name = name
        self.method = method
        self.datamodule = datamodule
        self.options = options
        self.model = entrant.model
        self.calibration: Calibration | None = None

    def prepare_data(self) -> None:
        """Let the data module tokenise, on one process per node."""
        self.datamodule.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the documents.

        Raises:
            ValueError: If the data's train_length is not the checkpoint's.
        """
        self.documents = open_documents(self.datamodule, [self.entrant])

    def test_dataloader(self) -> DataLoader[int]:
        """Return the one step."""
        return DataLoader([0])  # type: ignore[arg-type]

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Calibrate."""
        data: Any = self.datamodule
        with (
            self.model.using(self.method),
            progress_bar() if self.trainer.is_global_zero else nullcontext() as progress,
        ):
            found = calibrate(
                self.model,
                self.documents,
                data.vocabulary,
                data.train_length,
                method=self.name,
                progress=progress,
                **self.options,
            )
        checkpoint = {"checkpoint": str(self.entrant.path), "checkpoint_sha256": self.entrant.sha256()}
        self.calibration = Calibration(found.method, found.scale, {**checkpoint, **found.provenance})
