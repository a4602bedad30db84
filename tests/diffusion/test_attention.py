import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from maquette.core.errors import UserError
from maquette.diffusion.attention import AttentionCapture, AttentionControl, attention_sites
from maquette.diffusion.load import IMAGE_PARTS, load_pipeline

TOKENS = 7


@pytest.fixture(params=["", "?encoders=2", "?pooled=true"], ids=["plain", "two encoders", "pooled"])
def model(request):
    unet = load_pipeline(f"maquette/random-tiny{request.param}", parts=IMAGE_PARTS).unet
    generator = torch.Generator().manual_seed(0)
    width = unet.config.cross_attention_dim
    x, text = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, TOKENS, width, generator=generator),
    )
    added = None
    if unet.config.addition_embed_type == "text_time":
        added = {"text_embeds": torch.zeros(2, 32), "time_ids": torch.zeros(2, 6)}

    @torch.no_grad()
    def call(**more):
        return unet(x, torch.tensor([5, 900]), text, added_cond_kwargs=added, return_dict=False, **more)[0]

    return unet, call


def test_every_module_is_known_by_its_full_name(model):
    unet, _ = model
    for site, module in attention_sites(unet).items():
        assert unet.get_submodule(site.name) is module
        assert site.kind == ("cross" if site.name.endswith("attn2") else "self")
    assert {f"{site.name}.processor" for site in attention_sites(unet)} == set(unet.attn_processors)


def test_captured_maps_sum_to_one_and_leave_the_answer_as_it_was(model):
    unet, call = model
    plain = call()
    with AttentionCapture(unet, kind=None) as seen:
        captured = call()
    torch.testing.assert_close(captured, plain, atol=1e-5, rtol=1e-5)
    assert all(len(kept) == 1 for kept in seen.maps.values())
    for site in seen.sites:
        maps = seen.maps[site.name][0]
        assert maps.shape[:2] == (2, site.heads)
        assert maps.shape[3] == (TOKENS if site.kind == "cross" else maps.shape[2])
        torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))


def test_fused_projections_are_seen_too(model):
    unet, call = model
    with AttentionCapture(unet, kind=None) as seen:
        call()
    unet.fuse_qkv_projections()
    processors = dict(unet.attn_processors)
    plain = call()
    with AttentionCapture(unet, kind=None) as again:
        fused = call()
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    for name, maps in seen.maps.items():
        torch.testing.assert_close(again.maps[name][0], maps[0], atol=1e-5, rtol=1e-5)
    assert unet.attn_processors == processors


def test_the_processors_come_back_also_after_an_exception(model):
    unet, call = model
    before = dict(unet.attn_processors)
    with pytest.raises(ZeroDivisionError), AttentionControl(unet, lambda maps: maps.probabilities / 0):
        with AttentionCapture(unet):
            call()
            raise ZeroDivisionError
    assert all(unet.attn_processors[name] is one for name, one in before.items())
    assert all(isinstance(one, AttnProcessor2_0) for one in before.values())


def test_nested_controls_act_in_the_order_in_which_they_were_entered(model):
    unet, call = model
    halved = lambda maps: maps.probabilities / 2
    with AttentionCapture(unet) as first, AttentionControl(unet, halved, kind="cross"):
        with AttentionCapture(unet) as last:
            call()
    for name, (maps,) in first.maps.items():
        torch.testing.assert_close(last.maps[name][0], maps / 2)


def test_an_edit_reaches_only_what_it_was_meant_for_and_changes_the_answer(model):
    unet, call = model
    touched = []

    def first_token(maps):
        touched.append(maps.site.name)
        only = torch.zeros_like(maps.probabilities)
        only[..., 0] = 1.0
        return only

    plain = call()
    with AttentionControl(unet, first_token, kind="cross", where="up_blocks.*"):
        changed = call()
    assert touched and all(name.startswith("up_blocks.") and name.endswith("attn2") for name in touched)
    assert (changed - plain).abs().max() > 1e-4
    assert torch.equal(call(), plain)


def test_arguments_and_the_number_of_the_call_reach_the_edit(model):
    unet, call = model
    seen = []

    def edit(maps):
        seen.append((maps.call, maps.arguments))
        return maps.probabilities

    with AttentionControl(unet, edit, kind="cross"):
        call(cross_attention_kwargs={"attention": {"step": 3}})
        call()
    count = len(seen) // 2
    assert seen == [(0, {"step": 3})] * count + [(1, None)] * count


def test_maps_can_be_kept_in_part_and_averaged(model):
    unet, call = model
    with AttentionCapture(unet, tokens=[2, 4], mean_heads=True, rows=slice(1, 2)) as part:
        call()
    with AttentionCapture(unet) as whole:
        call()
    assert all(kept[0].shape[:2] == (1, 1) and kept[0].shape[3] == 2 for kept in part.maps.values())
    expected = whole.average(size=4)[1:, [2, 4]]
    torch.testing.assert_close(part.average(size=4), expected)
    part.clear()
    with pytest.raises(UserError, match="not called"):
        part.average()


def test_a_selection_of_nothing_is_refused(model):
    unet, _ = model
    with pytest.raises(UserError, match="No attention module"):
        AttentionControl(unet, lambda maps: maps.probabilities, where="sideways.*")
