"""What ``GAUAlphaModule`` is put together from, one idea a file.

``loss.py`` evaluates a batch at its targets, ``gradients.py`` makes a step that of the mean over them, ``schedule.py``
is the learning rate over a run that may be resumed, ``log.py`` logs against the optimizer step and loses no count at an
interruption, ``checks.py`` compares a checkpoint with what is to take it up, ``arguments.py`` builds a module
from what a checkpoint says of it.
"""
