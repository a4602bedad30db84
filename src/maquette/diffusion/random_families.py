"""Small random pipelines of the families beside Stable Diffusion: the same classes as the real models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    IFPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from maquette.diffusion.families.multiview_unet import MultiViewUNet
from maquette.diffusion.families.view_projection import CCProjection, Zero123Pipeline
from maquette.diffusion.random_parts import (
    NO_CHECKER,
    WIDTH,
    Builders,
    RandomPipelineSpec,
    byte_tokenizer,
    text_config,
    tiny_unet,
    tiny_vae,
    unet_shape,
)

VIEWS = 2
"""Views that the multi-view UNet sees together."""

Assemble = Callable[[dict[str, Any]], DiffusionPipeline]


def recipe(spec: RandomPipelineSpec, stable: Builders) -> tuple[Builders, Assemble]:
    """The builders of a family's parts and what assembles them; `stable` are those of Stable Diffusion."""
    changed, assemble = _FAMILIES[spec.family]
    builders = {**stable, **changed}
    return {part: builder for part, builder in builders.items() if builder is not _without}, assemble


def _without(spec: RandomPipelineSpec) -> Any:
    raise AssertionError("a part that the family does not have")


def _flow_scheduler(spec: RandomPipelineSpec) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _flow_transformer(spec: RandomPipelineSpec) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=spec.latent,
        patch_size=1,
        in_channels=spec.channels,
        out_channels=spec.channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=spec.latent,
    )


def _shifted_vae(spec: RandomPipelineSpec) -> AutoencoderKL:
    return tiny_vae(spec, shift_factor=0.1)


def _t5(width: int) -> Callable[[RandomPipelineSpec], T5EncoderModel]:
    config = {"d_model": width, "d_ff": width, "d_kv": 8, "num_heads": 2, "num_layers": 1}
    return lambda spec: T5EncoderModel(T5Config(vocab_size=len(byte_tokenizer()), **config))


def _clip(spec: RandomPipelineSpec) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(text_config())


def _tokenizer(spec: RandomPipelineSpec) -> Any:
    return byte_tokenizer()


def _pixel_scheduler(spec: RandomPipelineSpec) -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", prediction_type=spec.prediction
    )


def _pixel_unet(spec: RandomPipelineSpec) -> UNet2DConditionModel:
    return tiny_unet(
        spec,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=8,
        encoder_hid_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )


def _image_unet(spec: RandomPipelineSpec) -> UNet2DConditionModel:
    return tiny_unet(spec, in_channels=2 * spec.channels)


def _image_encoder(spec: RandomPipelineSpec) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        )
    )


def _projection(spec: RandomPipelineSpec) -> CCProjection:
    return CCProjection(in_channel=WIDTH + 4, out_channel=WIDTH)


def _views_unet(spec: RandomPipelineSpec) -> MultiViewUNet:
    unet = MultiViewUNet(
        **unet_shape(spec), class_embed_type="projection", projection_class_embeddings_input_dim=16
    )
    unet.share_views(VIEWS)
    return unet


def _controlnet(spec: RandomPipelineSpec) -> ControlNetModel:
    shape = unet_shape(spec)
    levels = spec.vae.bit_length()
    for key in ("sample_size", "out_channels", "up_block_types"):
        del shape[key]
    network = ControlNetModel(**shape, conditioning_embedding_out_channels=(4, 8, 8, 8)[:levels])
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.2)  # As made they are zero, which would hide every mistake.
    return network


def _stable(kind: type[DiffusionPipeline]) -> Assemble:
    return lambda parts: kind(**parts, **NO_CHECKER)


_FAMILIES: dict[str, tuple[Builders, Assemble]] = {
    "flow": (
        {
            "scheduler": _flow_scheduler,
            "unet": _without,
            "vae": _shifted_vae,
            "transformer": _flow_transformer,
            "text_encoder": _clip,
            "tokenizer_2": _tokenizer,
            "text_encoder_2": _clip,
            "tokenizer_3": _tokenizer,
            "text_encoder_3": _t5(2 * WIDTH),
        },
        lambda parts: StableDiffusion3Pipeline(**parts),
    ),
    "pixel": (
        {
            "scheduler": _pixel_scheduler,
            "unet": _pixel_unet,
            "vae": _without,
            "text_encoder": _t5(WIDTH),
        },
        lambda parts: IFPipeline(**parts, **NO_CHECKER, watermarker=None),
    ),
    "zero123": (
        {
            "unet": _image_unet,
            "tokenizer": _without,
            "text_encoder": _without,
            "image_encoder": _image_encoder,
            "cc_projection": _projection,
        },
        lambda parts: Zero123Pipeline(**parts),
    ),
    "multiview": ({"unet": _views_unet}, _stable(StableDiffusionPipeline)),
    "controlnet": ({"controlnet": _controlnet}, _stable(StableDiffusionControlNetPipeline)),
    "ip2p": ({"unet": _image_unet}, _stable(StableDiffusionInstructPix2PixPipeline)),
}
