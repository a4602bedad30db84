import math

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError, UnknownNameError
from maquette.core.random import RandomStreams
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.base import GeometryOutput
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.no_material import NoMaterial
from maquette.models.networks import init_parameters
from maquette.models.renderers.nerf_volume import NeRFVolumeRenderer
from maquette.models.renderers.proposal_network import (
    ProposalConfig,
    ProposalNetwork,
    learns_at,
    mean_over_ranks,
)
from maquette.ops.camera_batch import make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.training.weights import check_fits

ENCODING = {
    "otype": "HashGrid",
    "n_levels": 2,
    "n_features_per_level": 2,
    "log2_hashmap_size": 10,
    "base_resolution": 8,
    "per_level_scale": 2.0,
}
NETWORK = {"n_input_dims": 3, "n_output_dims": 1, "encoding_config": ENCODING, "network_config": {}}
BOX = torch.tensor([[-1.0] * 3, [1.0] * 3])
STREAMS = RandomStreams(0)


class Shell(ImplicitVolume):
    """A dense ball of radius 0.5."""

    def forward_density(self, points):
        return 400.0 * (points.norm(dim=-1, keepdim=True) < 0.5).float()

    def forward(self, points, output_normal=False):
        return GeometryOutput(density=self.forward_density(points), features=points)


def batch(views=1, size=6, rng=None):
    position = orbit_to_position(torch.zeros(views), torch.arange(views) * 40.0, torch.full((views,), 2.0))
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)),
        torch.full((views,), math.radians(30.0)),
        size,
        size,
        light_positions=position,
        elevation=torch.zeros(views),
        azimuth=torch.zeros(views),
        camera_distances=torch.full((views,), 2.0),
        rng=rng,
    )


def renderer(**cfg):
    cfg = {"num_samples_per_ray": 16, "num_samples_per_ray_proposal": 24, **cfg}
    cfg = {"estimator": "proposal", "proposal_network_config": NETWORK, **cfg}
    geometry = Shell({"pos_encoding_config": ENCODING})
    render = NeRFVolumeRenderer(cfg, geometry, NoMaterial({}), SolidColorBackground({}))
    init_parameters(render, seed=1, prefix="renderer")
    return render


def train(render, steps, first=0):
    seen = []
    for step in range(first, first + steps):
        render.do_update_step(0, step)
        out = render(**batch(views=2, rng=STREAMS.at(step, [2 * step, 2 * step + 1])))
        seen.append(out.get("proposal_loss", 0.0))
        render.do_update_step_end(0, step + 1)
    return seen


def test_samples_gather_where_the_matter_is():
    render = renderer()
    view = batch()

    def nearness():
        """How much of the samples of the central rays lies close to the front of the ball."""
        t = render(**view).t_points.reshape(36, 16)[[14, 15, 20, 21]]
        return ((t - 1.5).abs() < 0.1).float().mean().item()

    before, losses = nearness(), train(render, 150)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    assert before < 0.15 and nearness() > 0.5
    depth = render.eval()(**view)
    assert (depth.depth / depth.opacity)[0, 2, 2, 0].item() == pytest.approx(1.5, abs=0.05)


def test_every_ray_that_meets_the_box_has_its_number_of_samples():
    out = renderer()(**batch(views=3, rng=STREAMS.at(0, [0, 1, 2])))
    assert torch.bincount(out.ray_indices).tolist() == [16] * (3 * 36)
    torch.testing.assert_close(out.t_points.reshape(-1, 16).sort(dim=-1).values, out.t_points.reshape(-1, 16))


def test_batches_of_one_step_move_it_once():
    render = renderer()
    before = render.prop_net.network.layers["0"].weight.clone()
    for part in range(3):
        render.do_update_step(0, 0)
        render(**batch(rng=STREAMS.at(0, [part])))
        render.do_update_step_end(0, 1 if part == 2 else 0)
        moved = not torch.equal(render.prop_net.network.layers["0"].weight, before)
        assert moved == (part == 2)
    assert render.prop_net.optimizer.state_dict()["state"][0]["step"].item() == 1


def test_no_gradient_of_the_loss_reaches_the_proposal():
    render = renderer()
    render.do_update_step(0, 0)
    out = render(**batch(rng=STREAMS.at(0, [0])))
    assert all(parameter.grad is None for parameter in render.prop_net.parameters())
    assert not out.weights.requires_grad


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped():
    scheduler = {"name": "ExponentialLR", "args": {"gamma": 0.9}}
    whole = renderer(prop_scheduler_config=scheduler)
    train(whole, 3)
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    losses = train(whole, 3, first=3)
    resumed = renderer(prop_scheduler_config=scheduler)
    check_fits(resumed, state, "a file")
    resumed.load_state_dict(state)
    assert train(resumed, 3, first=3) == losses
    for ours, theirs in zip(resumed.prop_net.parameters(), whole.prop_net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_lessons_become_rarer():
    lessons = [learns_at(step) for step in range(3000)]
    assert all(lessons[:10])
    assert sum(lessons[2000:]) == pytest.approx(1000 / 6, abs=1)
    assert 1000 / 6 < sum(lessons[:1000]) < 1000


def test_density_is_zero_outside_the_box():
    network = ProposalNetwork(BOX, ProposalConfig(NETWORK))
    density = network.density(torch.tensor([[0.0, 0, 0], [1.2, 0, 0]]))
    assert density[0].item() == pytest.approx(math.exp(-1), rel=0.01) and density[1].item() == 0.0


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ({"name": "ExponentialLR", "args": {"gamma": 0.5}}, [0.1, 0.05, 0.025]),
        (
            {
                "name": "ChainedScheduler",
                "schedulers": [
                    {"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}},
                    {"name": "ExponentialLR", "args": {"gamma": 0.5}},
                ],
            },
            [0.05, 0.025, 0.0125],
        ),
        (
            {
                "name": "Sequential",
                "milestones": [1],
                "schedulers": [
                    {"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}},
                    {"name": "ExponentialLR", "args": {"gamma": 0.5}},
                ],
            },
            [0.05, 0.1, 0.05],
        ),
    ],
)
def test_the_learning_rate_follows_its_scheduler(scheduler, rates):
    config = ProposalConfig(NETWORK, {"name": "AdamW", "args": {"lr": 0.1}}, scheduler)
    network = ProposalNetwork(BOX, config)
    assert isinstance(network.optimizer, torch.optim.AdamW)
    seen = []
    for _ in range(3):
        seen.append(network.optimizer.param_groups[0]["lr"])
        network._pending = [torch.zeros_like(parameter) for parameter in network.parameters()]
        network.step()
    assert seen == pytest.approx(rates)


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        ({"prop_optimizer_config": {"name": "Adamm"}}, UnknownNameError, "Adamm"),
        ({"prop_optimizer_config": {"name": "Adam", "args": {"speed": 1}}}, ConfigError, "prop_optimizer"),
        ({"prop_scheduler_config": {"name": "Expo"}}, UnknownNameError, "Expo"),
        (
            {"proposal_network_config": {**NETWORK, "n_output_dims": 2}},
            ConfigError,
            "proposal_network_config",
        ),
        ({"num_samples_per_ray_proposal": 0}, ConfigError, "num_samples_per_ray_proposal"),
    ],
)
def test_what_cannot_be_is_refused(config, error, match):
    with pytest.raises(error, match=match):
        renderer(**config)


def test_the_network_is_a_module_of_the_renderer():
    names = {name.split(".")[0] for name, _ in renderer().named_parameters()}
    assert names == {"prop_net"} and isinstance(renderer().prop_net, nn.Module)


def test_what_the_optimizer_remembers_moves_with_the_network():
    net = ProposalNetwork(BOX, ProposalConfig(network=NETWORK))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.optimizer.step()
    resumed = ProposalNetwork(BOX, ProposalConfig(network=NETWORK))
    resumed.set_extra_state(net.get_extra_state())
    resumed.to(torch.float64)  # stands for a device, which a test may not have
    for parameter in resumed.parameters():
        state = resumed.optimizer.state[parameter]
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == parameter.dtype == torch.float64
        assert float(state["step"]) == 1.0


def test_gradients_of_several_processes_are_those_of_all_their_rays(monkeypatch):
    mine, theirs = [torch.tensor([1.0, 3.0])], torch.tensor([4.0, 0.0])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    other = torch.cat([theirs * 3.0, torch.tensor([3.0])])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.add_(other))
    (mean,), rays = mean_over_ranks(mine, 1)
    assert rays == 4 and torch.equal(mean, torch.tensor([(1.0 + 12.0) / 4, 3.0 / 4]))
    (mean,), rays = mean_over_ranks([torch.zeros(2)], 0)
    assert rays == 3 and torch.equal(mean, theirs)
