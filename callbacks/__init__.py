"""Lightning callbacks: one small file each, named by ``class_path`` in a YAML.

- ``callbacks.extrapolation.ExtrapolationEvaluation``: measures at multiples of the training length while training.
- ``callbacks.attention_entropy.AttentionEntropy``: how widely each layer attends on the training batch.
- ``callbacks.throughput.TrainingThroughput``: tokens/s, model FLOP/s and MFU of training.
- ``callbacks.nonfinite.Guard``: keeps NaN away from the weights; ``gau-alpha fit`` has one.
- ``callbacks.predictions.PredictionWriter``: writes embeddings and labels; ``gau-alpha predict`` has one.
- ``callbacks.prediction_progress.PredictionProgress``: tells how far it is; likewise.
- ``callbacks.compilation.CompileBlocks``: trains with blocks compiled by ``torch.compile``.
- ``callbacks.export.ExportHuggingFace``: leaves the trained model as a Hugging Face folder.
- ``callbacks.recovery``: what lets a run be killed and resumed; ``gau-alpha fit`` installs all of it.
"""
