"""Evaluation: lengths × methods × documents, and what it is run and reported by.

From the command to the model: ``cli/trainer.py`` opens checkpoints and hands work to Lightning (``run.py``); the
engine goes through lengths and candidates (``engine.py``); each is evaluated batch by batch (``evaluate_length.py``).

- ``options.py``     what an evaluation is set to
- ``candidates.py``  what is compared: a method on a model, and the checkpoint that this comes from
- ``spans.py``       which documents are measured at a length, which span of each, and the masked rows
- ``protocols.py``   which positions are masked (``mlm``, ``single-mask``)
- ``engine.py``      lengths and candidates, in their order, and the results
- ``evaluate_length.py`` the forward passes; smaller ones when memory runs out; all that training must
                     find as it was
- ``statistics.py``  sums over documents; numbers, intervals and differences that are made of them
- ``result.py``      what was measured for one method at one length
- ``result_cache.py`` finished measurements in files, so that an interrupted evaluation can resume
- ``run.py``         an evaluation, and a calibration, as a test that Lightning runs
- ``calibration_solver.py``, ``calibration.py``  measured temperatures, and the file that keeps them
- ``diagnostics.py`` where attention goes, while the blocks stream by
- ``distributed.py`` several processes, sharded weights
- ``inspection.py``  attention entropies of one text
- ``report/``        tables, plots and files

A new masking protocol is a class with the interface of ``protocols.Protocol``, handed to the engine; nothing else
changes.
"""

from gau_alpha.extrapolation.candidates import Candidate
from gau_alpha.extrapolation.engine import ExtrapolationEngine, Progress
from gau_alpha.extrapolation.evaluate_length import preserve_training_state
from gau_alpha.extrapolation.options import EvaluationOptions
from gau_alpha.extrapolation.protocols import MaskedTokens, Protocol, SingleMask
from gau_alpha.extrapolation.result import ExtrapolationResult, Status
from gau_alpha.extrapolation.result_cache import ResultCache
from gau_alpha.extrapolation.spans import EvaluationData

__all__ = [
    "Candidate",
    "EvaluationData",
    "EvaluationOptions",
    "ExtrapolationEngine",
    "ExtrapolationResult",
    "MaskedTokens",
    "Progress",
    "Protocol",
    "ResultCache",
    "SingleMask",
    "Status",
    "preserve_training_state",
]
