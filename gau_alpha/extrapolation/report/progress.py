"""The bar while an evaluation runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gau_alpha.untrusted.escaping import one_line


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[float, float, str], None]]:
    """A bar with the share done and the time left, fed by the engine's ``progress``.

    Args:
        console: Where to draw; standard output if None.

    Yields:
        What to hand to ``ExtrapolationEngine.compare`` as ``progress``.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("evaluating", total=None)
        yield lambda done, total, description: bars.update(
            bar, completed=done, total=total, description=one_line(description)
        )
