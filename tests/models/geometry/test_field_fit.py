"""Fits of fields by gradient descent."""

import logging

import pytest
import torch

from maquette.models.geometry import field_fit
from maquette.models.geometry.field_fit import fit


def test_a_long_fit_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    weights = torch.nn.Parameter(torch.ones(3))

    def loss(generator: torch.Generator) -> torch.Tensor:
        return (weights - torch.rand(3, generator=generator)).square().sum()

    fit([weights], loss, seed=0, steps=3)
    assert caplog.messages == []
    monkeypatch.setattr(field_fit, "SILENCE", 0.0)
    fit([weights], loss, seed=0, steps=2)
    assert caplog.messages == ["fitting: 1 of 2 steps", "fitting: 2 of 2 steps"]


@torch.no_grad()
def test_a_fit_finds_the_minimum_and_depends_on_the_seed_alone() -> None:
    def fitted(seed: int) -> torch.Tensor:
        weights = torch.nn.Parameter(torch.zeros(4))

        def loss(generator: torch.Generator) -> torch.Tensor:
            x = torch.randn(64, 4, generator=generator)
            return (x @ (weights - torch.tensor([0.1, -0.2, 0.3, 0.0]))).square().mean()

        fit([weights], loss, seed, steps=200, rates=(3e-2, 1e-4))
        assert weights.grad is None
        return weights.detach()

    torch.testing.assert_close(fitted(0), torch.tensor([0.1, -0.2, 0.3, 0.0]), rtol=0, atol=1e-3)
    assert torch.equal(fitted(0), fitted(0)) and not torch.equal(fitted(0), fitted(1))
