"""What ``GAUAlphaModule`` is put together from, one idea a file.

``loss.py`` evaluates a batch at its targets and makes a step that of the mean over them, ``optimizers.py`` says
what steps which parameters, ``joined.py`` makes several optimizers one, ``schedules.py`` is the learning rate over a
run that may be resumed, ``logging.py`` logs against the optimizer step and loses no count at an interruption,
``flops.py`` counts operations, ``compatibility.py`` compares a checkpoint with what is to take it up and builds a
module from what a checkpoint says of it.
"""
