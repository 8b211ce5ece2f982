"""Several checkpoints under several methods, as one test that Lightning runs."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch.nn import ModuleList
from torch.utils.data import DataLoader

from gau_alpha.entrants import Entrant, Evaluation
from gau_alpha.extrapolation import ExtrapolationEngine, Ledger, Row
from gau_alpha.extrapolation.stretches import document_fingerprint
from gau_alpha.report import progress_bar
from gau_alpha.sharding import shard


class ExtrapolationStudy(LightningModule):
    """Measures evaluations in a test of one step, so that Lightning sets up devices, precision and processes.

    Args:
        evaluations: What to measure.
        datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
        options: Arguments of ``ExtrapolationEngine``.
        baseline: Name of the evaluation that the others are compared with; the first if None.
        unfinished: Folder that keeps finished measurements until all are there.
        time_budget: Seconds; measurements that would end later are not begun.
    """

    def __init__(
        self,
        evaluations: list[Evaluation],
        datamodule: LightningDataModule,
        options: dict[str, Any],
        baseline: str | None,
        unfinished: Path,
        time_budget: float | None,
    ) -> None:
        super().__init__()
        self.evaluations = evaluations
        self.datamodule = datamodule
        self.options = options
        self.baseline = baseline
        self.unfinished = unfinished
        self.time_budget = time_budget
        self.entrants = list({id(one.entrant): one.entrant for one in evaluations}.values())
        self.models = ModuleList(entrant.model for entrant in self.entrants)
        self.rows: list[Row] = []
        self.ledger: Ledger | None = None
        self._engine: ExtrapolationEngine | None = None

    @property
    def engine(self) -> ExtrapolationEngine:
        """The engine, once ``setup`` has built it."""
        assert self._engine is not None, "setup builds it"
        return self._engine

    def prepare_data(self) -> None:
        """Let the data module tokenise, on one process per node."""
        self.datamodule.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the documents, and check that they and the checkpoints belong together.

        Raises:
            ValueError: If the data's train_length is not the checkpoints', no document is long enough, or the output
                folder holds an unfinished evaluation of something else.
        """
        documents = open_documents(self.datamodule, self.entrants)
        data: Any = self.datamodule
        self._engine = ExtrapolationEngine(
            documents,
            data.vocabulary,
            data.train_length,
            left_out=self._calibrated_on(documents),
            **self.options,
        )
        refusal = ""
        if self.trainer.is_global_zero:
            try:
                self.ledger = Ledger(self.unfinished, self.identity())
                if known := len(self.ledger.known()):
                    rank_zero_info(f"{known} measurements are finished already, and read from {self.unfinished}")
            except ValueError as error:
                refusal = str(error)
        # The first process alone sees the folder, but all must stop, or the others would wait for it.
        if refusal := self.trainer.strategy.broadcast(refusal):
            raise ValueError(refusal)

    def configure_model(self) -> None:
        """Deal the weights over processes, where the strategy says how."""
        for entrant in self.entrants:
            shard(entrant.model, self.device_mesh)

    def test_dataloader(self) -> DataLoader[int]:
        """Return the one step; the engine deals documents to processes itself."""
        return DataLoader([0])  # type: ignore[arg-type]

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Measure every method at every length."""
        contenders = [one.contender() for one in self.evaluations]
        with progress_bar() if self.trainer.is_global_zero else nullcontext() as progress:
            self.rows = list(self.engine.compare(contenders, self.baseline, progress, self.ledger, self.time_budget))

    def describe(self) -> dict[str, Any]:
        """Say in plain data what was measured."""
        return {
            "evaluation": self.engine.describe(),
            "baseline": self.baseline or self.evaluations[0].name,
            "methods": {one.name: one.method.describe() for one in self.evaluations},
            "checkpoints": {one.name: str(one.entrant.path) for one in self.evaluations},
        }

    def identity(self) -> dict[str, Any]:
        """Say in plain data what measurements belong to: results of another identity are never mixed in."""
        hashes = {entrant.path: entrant.sha256() for entrant in self.entrants}
        return {
            "checkpoints": {one.name: hashes[one.entrant.path] for one in self.evaluations},
            "methods": {one.name: one.method.describe() for one in self.evaluations},
            "evaluation": self.engine.describe(),
            "documents": self.engine.stretches.fingerprint(),
            "precision": str(self.trainer.precision),
        }

    def _calibrated_on(self, documents: Any) -> list[int]:
        """Places of the documents that a method was calibrated on: nothing is evaluated on them."""
        known = {
            fingerprint
            for one in self.evaluations
            if one.calibration is not None
            for fingerprint in one.calibration.provenance["documents"]
        }
        if not known:
            return []
        return [place for place in range(len(documents)) if document_fingerprint(documents[place]) in known]


def open_documents(datamodule: LightningDataModule, entrants: list[Entrant]) -> Any:
    """Open the evaluation documents.

    Args:
        datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
        entrants: The checkpoints that they are for.

    Raises:
        ValueError: If the data's train_length is not the checkpoints'.
    """
    datamodule.setup("test")
    data: Any = datamodule
    for entrant in entrants:
        if entrant.train_length != data.train_length:
            raise ValueError(
                f"{entrant.path} was trained on rows of {entrant.train_length} tokens, but the data has "
                f"train_length {data.train_length}: length ratios would be wrong. Leave the data's train_length "
                f"as it was in training; other lengths are asked for with --length_ratios."
            )
    documents = data.evaluation_documents()
    if len(documents) and np.ndim(documents[0]) != 1:
        raise ValueError("evaluation_documents() must hold 1-D arrays of token ids, one per document.")
    return documents
