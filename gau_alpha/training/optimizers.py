"""Which parameters decay."""

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split parameters into those that decay and those that don't.

    Matrices decay. Scales, offsets, biases and whatever an attention method learns do not: pulling a scale towards 0
    is no regularisation.

    Args:
        model: The model.
        weight_decay: Decay of the matrices.

    Returns:
        Two groups for an optimizer.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and ".method." not in name]
    others = [p for name, p in trained if p.ndim < 2 or ".method." in name]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
