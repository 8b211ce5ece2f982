"""The lean formulas give the digits of the plain ones, and right gradients."""

import pytest
import torch
import torch.nn.functional as F

from gau_alpha.pointwise import norm, silu_gate, silu_split

SHAPES = [(1, 1, 1), (2, 7, 5), (3, 33, 192), (4, 64, 768)]


def plain_norm(x, eps):
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_norm_to_the_last_bit(shape, scale):
    x = (scale * torch.randn(shape)).requires_grad_()
    upstream = torch.randn(shape)
    expected, ours = plain_norm(x, 1e-12), norm(x, 1e-12)
    assert torch.equal(ours, expected)
    assert torch.equal(ours, F.rms_norm(x, x.shape[-1:], eps=1e-12))
    (wanted,), (gradient,) = (torch.autograd.grad(y, x, upstream) for y in (expected, ours))
    assert torch.equal(gradient, wanted)


def test_norm_gradient_in_float64():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm(x, 1e-3), x)
    zero = torch.zeros(1, 4, requires_grad=True)
    norm(zero, 1e-12).sum().backward()
    assert zero.grad.isfinite().all()


def test_norm_of_half_precision_is_taken_in_float32():
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # 300² overflows float16
    assert norm(x, 1e-12).dtype == torch.float16
    assert torch.equal(norm(x, 1e-12), torch.ones(1, 4, dtype=torch.float16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[32, 32, 64], [1536, 1536, 128]], ids=str)
def test_silu_split_to_the_last_bit(sizes, dtype):
    x = (4 * torch.randn(2, 9, sum(sizes))).to(dtype).requires_grad_()
    upstream = [torch.randn(2, 9, size).to(dtype) for size in sizes]
    expected, ours = F.silu(x).split(sizes, dim=-1), silu_split(x, sizes)
    assert all(map(torch.equal, ours, expected))
    (wanted,), (gradient,) = (torch.autograd.grad(y, x, upstream) for y in (expected, ours))
    assert torch.equal(gradient, wanted)


@pytest.mark.parametrize("sizes", [[3, 3, 2], [24, 24, 8]], ids=str)
def test_silu_split_of_narrow_parts_to_rounding(sizes):
    x = (4 * torch.randn(2, 9, sum(sizes))).requires_grad_()
    upstream = [torch.randn(2, 9, size) for size in sizes]
    expected, ours = F.silu(x).split(sizes, dim=-1), silu_split(x, sizes)
    torch.testing.assert_close(ours, expected, rtol=3e-7, atol=1e-9)
    (wanted,), (gradient,) = (torch.autograd.grad(y, x, upstream) for y in (expected, ours))
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-7)


def plain_gate(x, sizes, context):
    u, v, base = F.silu(x).split(sizes, dim=-1)
    return u * context(v, base), v, base


def gate(x, sizes, context):
    opening, v, base = silu_gate(x, sizes)
    return opening(context(v, base)), v, base


def mixed(v, base):
    return v.flip(1) * base.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 130)], ids=str)  # the last: several pieces, a ragged one
def test_silu_gate_to_the_last_bit(shape, dtype):
    sizes = [1536, 1536, 128]
    x = torch.randn(*shape, sum(sizes)).to(dtype).requires_grad_()
    upstream = [torch.randn(*shape, size).to(dtype) for size in sizes]
    expected, ours = (one(x, sizes, mixed) for one in (plain_gate, gate))
    assert all(map(torch.equal, ours, expected))
    (wanted,), (gradient,) = (torch.autograd.grad(y, x, upstream) for y in (expected, ours))
    assert torch.equal(gradient, wanted)


def test_silu_gate_gradient_in_float64():
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gate(x, [3, 3, 2], mixed), x)


def test_a_kept_graph_gives_its_gradient_again():
    sizes = [16, 16, 32]
    x = torch.randn(2, 5, 64, requires_grad=True)
    before = x.detach().clone()
    expected, ours = (sum(part.square().sum() for part in one(x, sizes, mixed)) for one in (plain_gate, gate))
    for _ in range(2):
        wanted, gradient = (torch.autograd.grad(y, x, retain_graph=True)[0] for y in (expected, ours))
        torch.testing.assert_close(gradient, wanted)
        assert torch.equal(x, before)
    torch.testing.assert_close(torch.autograd.grad(ours, x)[0], wanted)


def test_a_graph_that_is_not_kept_gives_its_gradient_in_the_tensor_itself():
    x = torch.randn(2, 5, 64, requires_grad=True)
    projected = 1 * x
    sum(part.sum() for part in gate(projected, [16, 16, 32], mixed)).backward()
    assert torch.equal(projected, x.grad)


def test_silu_gate_of_a_transposed_tensor():
    sizes = [16, 16, 32]
    x = torch.randn(5, 2, 64, requires_grad=True)
    results = [sum(part.square().sum() for part in one(x.transpose(0, 1), sizes, mixed)) for one in (plain_gate, gate)]
    torch.testing.assert_close(*(torch.autograd.grad(y, x)[0] for y in results))


def test_silu_gate_left_shut():
    sizes = [16, 16, 32]
    x = torch.randn(2, 5, 64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.silu(x)[..., 16:].square().sum(), x)
    _, v, base = silu_gate(1 * x, sizes)
    (v.square().sum() + base.square().sum()).backward()
    torch.testing.assert_close(x.grad, expected)


def split(x, sizes):
    return silu_split(x, sizes)


def opened_once(x, sizes):
    return gate(x, sizes, mixed)


def opened_twice(x, sizes):
    opening, v, base = silu_gate(x, sizes)
    return opening(v), opening(v.cos()), base


def shut(x, sizes):
    return silu_gate(x, sizes)[1:]


def opened_in_vain(x, sizes):
    opening, v, base = silu_gate(x, sizes)
    opening(v)
    return v, base


@pytest.mark.parametrize("parts", [split, opened_once, shut, opened_in_vain])
def test_whoever_else_needs_what_is_overwritten_is_told(parts):
    """Torch's check of versions sees the writing: nothing is silently wrong."""
    x = torch.randn(2, 5, 64, requires_grad=True)
    of_tanh = sum(part.sum() for part in parts(x.tanh(), [16, 16, 32]))  # tanh keeps its result for its gradient
    projected = 1 * x
    squares = projected.square().sum()
    of_two = squares + sum(part.sum() for part in parts(projected, [16, 16, 32]))
    for y in (of_tanh, of_two):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_a_gate_that_is_opened_twice_or_needed_after_its_tensor_is_told():
    x, factor = torch.randn(2, 5, 64, requires_grad=True), torch.ones(16, requires_grad=True)
    twice = sum(part.sum() for part in opened_twice(1 * x, [16, 16, 32]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        twice.backward()
    opening, v, base = silu_gate(1 * x, [16, 16, 32])
    y = opening(v * factor)
    torch.autograd.grad(base.square().sum(), x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.square().sum(), factor)


def test_gradients_of_kept_copies():
    """Saved tensors may be moved elsewhere and back: then the parts' gradients lie in copies, and are put together."""
    sizes = [16, 16, 32]
    x = torch.randn(2, 5, 64, requires_grad=True)
    (expected,) = torch.autograd.grad(sum(part.square().sum() for part in plain_gate(x, sizes, mixed)), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept.clone(), lambda kept: kept):
        y = sum(part.square().sum() for part in gate(1 * x, sizes, mixed))
    y.backward()
    torch.testing.assert_close(x.grad, expected)


def test_silu_gate_without_gradients_needs_no_second_tensor():
    x, context = torch.randn(2, 5, 8), torch.randn(2, 5, 3)
    u = F.silu(x)[..., :3]
    expected = u * context
    opening, v, _ = silu_gate(x, [3, 3, 2])
    assert v.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert torch.equal(opening(context), expected)
    assert torch.equal(context, expected)  # overwritten


def test_silu_split_with_a_part_unused():
    x = torch.randn(2, 5, 8, requires_grad=True)
    u, _, base = silu_split(x, [3, 3, 2])
    (gradient,) = torch.autograd.grad((u.sum() + base.sum(),), x)
    assert (gradient[..., 3:6] == 0).all()
    assert (gradient[..., :3] != 0).all()


def test_silu_split_gradient_in_float64():
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: silu_split(x, [3, 3, 2]), x)


def test_silu_split_without_gradients_needs_no_second_tensor():
    x = torch.randn(2, 5, 8)
    expected = F.silu(x)
    parts = silu_split(x, [3, 3, 2])
    assert torch.equal(torch.cat(parts, dim=-1), expected)
    assert parts[0].data_ptr() == x.data_ptr()
