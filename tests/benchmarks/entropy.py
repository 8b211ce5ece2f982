"""How constant calibrated entropy is: ``python tests/benchmarks/entropy.py runs/demo/softmax runs/demo/cosscale``.

Documents that took no part in the calibration are cut into rows of every length, so that each length sees the same
text, 15 % of it hidden as in an evaluation. Nothing is timed. Give the folders of finished runs.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from datamodules import ByteTokenizer, PythonStandardLibrary, TextDataModule
from gau_alpha import AttentionMethod, GAUAlphaModule
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.extrapolation.calibration_solver import calibrate
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.scaling import InfoScale

RATIOS = [1, 2, 4, 8, 16, 32, 64]
DOCUMENTS, QUERIES, HELD_OUT = 8, 256, 14


def entropies(module: GAUAlphaModule, texts: list[np.ndarray], vocabulary, method: AttentionMethod) -> np.ndarray:
    """(lengths, layers) mean entropy over all queries of rows cut from ``texts``."""
    found = []
    for ratio in RATIOS:
        length = ratio * module.train_length
        rows = [row for text in texts for row in text.reshape(-1, length)]
        options = EvaluationOptions(length_ratios=[ratio], distances=False, num_resamples=1)
        engine = ExtrapolationEngine(rows, vocabulary, module.train_length, options)
        (row,) = engine.evaluate(module.model, {"it": method})
        assert row.layers is not None
        found.append(row.layers["attention_entropy"])
    return np.array(found)


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        module = GAUAlphaModule.load_from_checkpoint(folder / "checkpoints" / "last.ckpt", map_location="cpu")
        data = TextDataModule(PythonStandardLibrary(), ByteTokenizer(), train_length=module.train_length)
        data.prepare_data()
        data.setup("test")
        documents, length = data.evaluation_documents(), RATIOS[-1] * module.train_length
        options = {"num_documents": DOCUMENTS, "queries_per_document": QUERIES, "length_ratios": RATIOS}
        found = calibrate(module.model, documents, data.vocabulary, module.train_length, method="trained", **options)
        taken = set(found.provenance["documents"])
        long = [documents[one] for one in range(len(documents)) if len(documents[one]) >= length]
        free = [document for document in long if document_fingerprint(document) not in taken]
        texts = [np.asarray(document)[:length] for document in free[:HELD_OUT]]
        own = module.model.method
        scalings = {"infoscale": InfoScale(), "calibrated": found.scale}
        methods = {"own": own, **{name: own.replace(scaling=scaling) for name, scaling in scalings.items()}}
        print(f"{folder}: {len(texts)} documents, entropy over that at 1×, mean over layers (layers from … to …)")
        for name, method in methods.items():
            with torch.no_grad():
                measured = entropies(module, texts, data.vocabulary, method.with_train_length(module.train_length))
            mean = measured.mean(1) / measured[0].mean()
            layers = measured / measured[0]
            for ratio, all_layers, each in zip(RATIOS, mean, layers, strict=True):
                print(f"  {name:10s} {ratio:2d}×: {all_layers:.3f} ({each.min():.3f} to {each.max():.3f})", flush=True)


if __name__ == "__main__":
    main()
