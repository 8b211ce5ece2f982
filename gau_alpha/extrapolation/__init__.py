"""The evaluation engine: lengths × methods × documents, and what it is run and reported by.

One idea per file:

- ``engine.py``      what is measured, in which order, and the rows made of it
- ``contenders.py``  what takes part: a method on a model
- ``entrants.py``    which checkpoints are evaluated under which methods
- ``study.py``, ``calibration_run.py``  an evaluation, and a calibration, as a test that Lightning runs
- ``calibrate.py``, ``temperature_search.py``, ``calibration.py``  measured temperatures and the file that keeps them
- ``data.py``        what a data module offers
- ``stretches.py``   which documents are measured at a length, and which stretch of each
- ``protocols.py``   which positions a pass over a document hides (``mlm``, ``single-mask``)
- ``batches.py``     passes cut into batches, batches dealt to processes
- ``passes.py``      the forward passes, and what happens when memory runs out
- ``diagnostics.py`` where attention goes, while the blocks stream by
- ``sums.py``        what passes leave behind, and how documents are made of them
- ``measurement.py`` all that was measured of a method at a length
- ``ledger.py``      finished measurements in files, so that an interrupted evaluation goes on
- ``statistics.py``  from measurements to numbers, intervals and differences
- ``intervals.py``   bootstrap over documents
- ``ranks.py``       what processes tell each other
- ``memory.py``      peak memory, and which errors mean that there was too little
- ``isolation.py``   everything training must find as it was
- ``rows.py``        the result: one row per (method, length)
- ``report/``        tables, plots and files

A new masking protocol is a class with the interface of ``protocols.Protocol``, handed to the engine; nothing else
changes.
"""

from gau_alpha.extrapolation.contenders import Contender
from gau_alpha.extrapolation.data import EvaluationData
from gau_alpha.extrapolation.engine import ExtrapolationEngine, Progress
from gau_alpha.extrapolation.isolation import undisturbed
from gau_alpha.extrapolation.ledger import Ledger
from gau_alpha.extrapolation.protocols import MaskedTokens, Protocol, SingleMask
from gau_alpha.extrapolation.rows import Row, Status

__all__ = [
    "Contender",
    "EvaluationData",
    "ExtrapolationEngine",
    "Ledger",
    "MaskedTokens",
    "Progress",
    "Protocol",
    "Row",
    "SingleMask",
    "Status",
    "undisturbed",
]
