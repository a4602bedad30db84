import torch
from torch import nn

from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.networks import get_mlp, init_parameters


class Pair(nn.Module):
    def __init__(self, extra=False):
        super().__init__()
        if extra:
            self.before = get_mlp(3, 3, {})
        self.first, self.second = get_mlp(3, 1, {}), get_mlp(3, 1, {})
        self.foreign = nn.Linear(2, 2)


def weights(module):
    return [module.first.layers["0"].weight, module.second.layers["0"].weight]


def test_initialisation_depends_on_seed_and_name_only():
    one, other = Pair(), Pair(extra=True)
    init_parameters(one, seed=1)
    torch.manual_seed(1234)
    init_parameters(other, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert not torch.equal(*weights(one)), "each name has numbers of its own"
    init_parameters(other, seed=2)
    assert not torch.equal(weights(one)[0], weights(other)[0])


def test_a_part_drawn_alone_is_the_part_of_the_whole():
    whole, part = Pair(), get_mlp(3, 1, {})
    init_parameters(whole, seed=5)
    init_parameters(part, seed=5, prefix="second")
    assert torch.equal(part.layers["0"].weight, weights(whole)[1])


def test_modules_of_other_libraries_and_learned_colors_are_left_alone():
    pair, background = Pair(), SolidColorBackground({"learned": True, "color": [0.1, 0.2, 0.3]})
    before = pair.foreign.weight.clone()
    init_parameters(pair, seed=3)
    init_parameters(background, seed=3)
    assert torch.equal(pair.foreign.weight, before)
    torch.testing.assert_close(background.env_color.data, torch.tensor([0.1, 0.2, 0.3]))


def test_loaded_weights_are_kept(tmp_path):
    source = SolidColorBackground({"learned": True, "color": [0.1, 0.2, 0.3]})
    state = {f"background.{name}": value for name, value in source.state_dict().items()}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "epoch": 0, "global_step": 7}, path)

    class Holder(SolidColorBackground):
        def configure(self):
            super().configure()
            self.network = get_mlp(3, 1, {})

        def load_state_dict(self, state_dict, strict=True):
            return super().load_state_dict(state_dict, strict=False)

    holder = Holder({"learned": True, "weights": f"{path}:background"})
    before = holder.network.layers["0"].weight.clone()
    init_parameters(holder, seed=3)
    assert torch.equal(holder.network.layers["0"].weight, before)
    torch.testing.assert_close(holder.env_color, source.env_color)
