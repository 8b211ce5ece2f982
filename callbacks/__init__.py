"""Lightning callbacks: one small file each, named by ``class_path`` in a YAML.

- ``callbacks.extrapolation.ExtrapolationEvaluation``: measures at multiples of the training length while training.
- ``callbacks.export.ExportHuggingFace``: leaves the trained model as a Hugging Face folder.
"""
