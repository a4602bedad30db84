import torch

from maquette.ops.color import linear_to_srgb, srgb_to_linear


def test_known_values():
    linear = torch.tensor([0.0, 0.0031308, 0.18, 0.5, 1.0])
    display = torch.tensor([0.0, 0.04045, 0.461356, 0.735357, 1.0])
    torch.testing.assert_close(linear_to_srgb(linear), display, atol=1e-5, rtol=0)
    torch.testing.assert_close(srgb_to_linear(display), linear, atol=1e-5, rtol=0)


def test_there_and_back_with_finite_gradients():
    values = torch.linspace(0, 1, 101, requires_grad=True)
    again = linear_to_srgb(srgb_to_linear(values))
    torch.testing.assert_close(again, values, atol=1e-6, rtol=0)
    again.sum().backward()
    torch.testing.assert_close(values.grad, torch.ones(101), atol=1e-3, rtol=0)
