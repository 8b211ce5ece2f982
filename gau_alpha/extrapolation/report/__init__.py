"""An evaluation as people and programs read it.

- ``report.py``   rows and their run; the files JSON and CSV
- ``best.py``      the best of a length, and what is as good
- ``documents.py`` sums of every document, in Parquet
- ``groups.py``   mean and spread over checkpoints that differ in their seed
- ``cells.py``    numbers and plain data as text
- ``tables.py``   on screen, in Markdown, in LaTeX
- ``figures.py``  plots
- ``page.py``     the HTML page
"""

from gau_alpha.extrapolation.report.report import NAME, Report

__all__ = ["NAME", "Report"]
