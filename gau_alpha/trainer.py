"""Lightning's Trainer with one more verb: ``extrapolate``."""

from lightning.pytorch import LightningDataModule, Trainer

from gau_alpha.module import GAUAlphaModule
from gau_alpha.presets import TRAINED
from gau_alpha.report import Report
from gau_alpha.study import ExtrapolationStudy, open_checkpoints, pair_up

DEFAULT_METHODS = [TRAINED, "infoscale", "windowed"]
DEFAULT_RATIOS = [1, 2, 4, 8, 16, 32, 64]
PROTOCOLS = ("mlm",)


class GAUAlphaTrainer(Trainer):
    """Lightning's Trainer that can also evaluate finished checkpoints past their training length."""

    def extrapolate(
        self,
        model: GAUAlphaModule,
        datamodule: LightningDataModule,
        ckpt_path: list[str],
        methods: list[str] = DEFAULT_METHODS,
        length_ratios: list[int] = DEFAULT_RATIOS,
        protocol: str = "mlm",
        max_documents: int | None = None,
        tokens_per_batch: int = 16384,
        entropy: bool = True,
        seed: int = 0,
        output_dir: str | None = None,
    ) -> ExtrapolationStudy:
        """Evaluate checkpoints at multiples of their training length under many methods.

        With several checkpoints, a method that fixes the similarity is evaluated on those trained with it, other
        methods on each; where a method is evaluated on more than one, it is named ``method (checkpoint's run)``.

        Args:
            model: Built for the first checkpoint. Its method differs from the checkpoint's where another was asked for;
                it then differs in the same way for every checkpoint.
            datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
            ckpt_path: Lightning checkpoints of GAUAlphaModule, one or more.
            methods: Presets (see ``gau-alpha methods``), or ``trained`` for a checkpoint's own method. The first is
                the baseline of differences.
            length_ratios: Evaluated lengths as multiples of train_length.
            protocol: Which positions are hidden: ``mlm``.
            max_documents: At each length only the first so many documents that are long enough; all if null.
            tokens_per_batch: Documents are batched up to this many tokens; a longer one is a batch of its own.
            entropy: Whether to measure attention entropy.
            seed: Of hidden positions and resamples.
            output_dir: Where extrapolation.json, .csv, .md and .png go. Default: the first checkpoint's run folder.

        Returns:
            The study, with its rows; the table is printed and the files are written.

        Raises:
            ValueError: If a method is unknown, a checkpoint can't be read or does not fit the data, or no document is
                long enough.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"Unknown protocol {protocol!r}; choose one of: {', '.join(PROTOCOLS)}.")
        entrants = open_checkpoints(ckpt_path, model)
        options = {
            "length_ratios": length_ratios,
            "max_documents": max_documents,
            "tokens_per_batch": tokens_per_batch,
            "entropy": entropy,
            "seed": seed,
        }
        study = ExtrapolationStudy(pair_up(entrants, methods), datamodule, options)
        self.test(study, verbose=False)
        if self.is_global_zero:
            report = Report(study.rows, {**study.describe(), "precision": str(self.precision)})
            *_, plot = report.write(output_dir or entrants[0].path.resolve().parent.parent)
            report.print()
            print(f"plot: {plot}\nall rows: {plot.with_suffix('.json')}")
        return study
