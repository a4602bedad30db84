"""Which word of a prompt made which part of an asset: cross-attention of its views, brought back onto it.

Each view of the asset is noised to several levels and shown to the diffusion model with the prompt in the
words of that view; places of the picture that look at the tokens of the word are where the model sees it
(Tang et al. 2022, DAAM). A vertex gets the mean over the views that see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import current_device
from maquette.core.errors import RunFailed
from maquette.core.random import RandomStreams, StepRandom
from maquette.diffusion import score
from maquette.diffusion.attention import AttentionCapture, attention_sites
from maquette.diffusion.denoiser import LatentDenoiser, own_denoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import TextEncoding, encode_prompts
from maquette.diffusion.word_alignment import token_indices
from maquette.kernels.render_mesh import render_mesh
from maquette.models.prompt_processors.directions import Directions
from maquette.ops.camera_batch import CameraBatch
from maquette.ops.mesh import Mesh, vertex_normals
from maquette.ops.orbit import orbit_cameras
from maquette.ops.transforms import world_to_screen

LEVELS = (0.15, 0.3, 0.45, 0.6)
"""Shares of the noise levels at which a view is shown to the model."""
VIEWS_AT_ONCE = 8
AZIMUTHS = 8
ELEVATIONS_DEG = (5.0, 25.0, 50.0)
GREY = 0.7
VISIBLE = 0.02
"""A vertex is seen where its distance differs from the picture's by no more than this share of it."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Where one word is on an asset."""

    word: str
    vertices: Float[Tensor, "V"]
    """How much each vertex belongs to the word, 0 to 1."""
    seen: Bool[Tensor, "V"]
    """Whether any view saw the vertex; the others have the mean of their neighbours."""
    views: Float[Tensor, "N H W 3"]
    """The pictures that the model was shown."""
    maps: Float[Tensor, "N H W"]
    """What the word looked at in each of them, 0 to 1."""


@torch.no_grad()
def attribute(
    mesh: Mesh,
    prompt: str,
    words: Sequence[str],
    model: str,
    directions: Directions,
    *,
    distance: float = 2.8,
    fovy_deg: float = 40.0,
    seed: int = 0,
    where: str | None = None,
) -> dict[str, Attribution]:
    """Bring each word's cross-attention back onto the vertices of an asset.

    Args:
        mesh: in the world frame, with its colours.
        prompt: what it was made from.
        words: of the prompt.
        model: as for `load_pipeline`.
        directions: the view words that the model knows.
        distance: of the cameras from the origin, world units.
        fovy_deg: their vertical field of view.
        seed: of the noise.
        where: pattern of the cross-attention modules to read; by default the last one, nearest to the
            picture, which told parts apart better than all of them together.

    Raises:
        UserError: the prompt does not have a word.
        RunFailed: no view shows the mesh.
    """
    denoiser = own_denoiser(model, torch.float32, current_device())
    tokenizer = load_pipeline(model, parts=("tokenizer",)).tokenizer
    columns = {word: token_indices(tokenizer, prompt, word) for word in words}
    cameras = view_cameras(denoiser.image_size, distance, fovy_deg)
    views = render_mesh(mesh, cameras, "albedo", (GREY,) * 3)
    texts = [directions.prompts(prompt)[row] for row in directions.index(cameras.elevation, cameras.azimuth)]
    maps = _attention(denoiser, views["rgb"], model, texts, seed, where or _last_module(denoiser))
    weights, pixels = _visibility(mesh, cameras, views["depth"])
    if not torch.any(weights > 0):
        raise RunFailed("No view shows the asset: it lies outside of what the cameras see.")
    found = {}
    for word, tokens in columns.items():
        shown = _normalised(maps[:, tokens].sum(1), views["opacity"][..., 0] > 0.5)
        values, seen = _gathered(mesh, shown, weights, pixels)
        found[word] = Attribution(word=word, vertices=values, seen=seen, views=views["rgb"], maps=shown)
    return found


def view_cameras(size: int, distance: float, fovy_deg: float) -> CameraBatch:
    """Cameras all around, on three heights."""
    azimuth = torch.arange(AZIMUTHS).repeat(len(ELEVATIONS_DEG)) * (360.0 / AZIMUTHS)
    elevation = torch.tensor(ELEVATIONS_DEG).repeat_interleave(AZIMUTHS)
    distances = torch.full_like(elevation, distance)
    return orbit_cameras(elevation, azimuth, distances, torch.full_like(elevation, fovy_deg), size, size)


def roc_area(values: Float[Tensor, "N"], truth: Bool[Tensor, "N"], weights: Float[Tensor, "N"]) -> float:
    """Area under the ROC curve: the chance that a point inside has a larger value than one outside.

    Points count by `weights`, the surface that they stand for; ties count half.
    """
    inside, outside = truth.double() * weights, (~truth).double() * weights
    unique, group = values.unique(return_inverse=True)
    right = values.new_zeros(len(unique), dtype=torch.float64).index_add(0, group, inside.double())
    wrong = torch.zeros_like(right).index_add(0, group, outside.double())
    below = wrong.cumsum(0) - wrong
    return float((right * (below + wrong / 2)).sum() / (inside.sum() * outside.sum()))


def _attention(
    denoiser: LatentDenoiser,
    views: Float[Tensor, "N H W 3"],
    model: str,
    texts: list[str],
    seed: int,
    where: str,
) -> Float[Tensor, "N K S S"]:
    """Mean cross-attention maps of the views' own prompts."""
    text = encode_prompts(model, texts)
    parts = []
    for rows in torch.arange(len(views)).split(VIEWS_AT_ONCE):
        rng = RandomStreams(seed).at(0, rows.tolist())
        with AttentionCapture(denoiser.unet, where=where, mean_heads=True) as seen:
            _look(denoiser, views[rows], text[rows], rng)
        parts.append(seen.average(denoiser.latent_size))
    return torch.cat(parts)


def _look(denoiser: LatentDenoiser, views: Tensor, text: TextEncoding, rng: StepRandom) -> None:
    """Show views to the model at every noise level."""
    device = denoiser.device
    latents, text = denoiser.encode(views.permute(0, 3, 1, 2).to(device)), text.to(device)
    for number, share in enumerate(LEVELS):
        t = torch.full((len(views),), int(share * denoiser.num_train_timesteps), device=device)
        noise = rng.normal(f"attribution/noise{number}", *latents.shape[1:]).to(latents)
        x_t = score.add_noise(latents, noise, denoiser.alphas_cumprod[t])
        denoiser.predict_noise(x_t, t, text.hidden, text.pooled)


def _last_module(denoiser: LatentDenoiser) -> str:
    return [site.name for site in attention_sites(denoiser.unet) if site.kind == "cross"][-1]


def _normalised(maps: Float[Tensor, "N S S"], covered: Bool[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    """Maps in the size of the pictures; 0 and 1 are the extremes on the asset, over all views alike."""
    large = F.interpolate(maps[:, None], covered.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    inside = large[covered]
    low, high = (inside.min(), inside.max()) if len(inside) else (large.min(), large.max())
    return ((large - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0)


def _visibility(
    mesh: Mesh, cameras: CameraBatch, depth: Float[Tensor, "N H W 1"]
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V 2"]]:
    """How well each view sees each vertex (0: not at all), and where on the picture it is, in [-1, 1]."""
    points = mesh.vertices.expand(cameras.batch_size, -1, 3)
    pixels = world_to_screen(points, cameras.mvp_mtx, cameras.height, cameras.width)
    where = pixels / pixels.new_tensor([cameras.width, cameras.height]) * 2.0 - 1.0
    towards = cameras.camera_positions[:, None] - points
    length = towards.norm(dim=-1)
    facing = (towards / length[..., None] * vertex_normals(mesh)).sum(-1).clamp(min=0.0)
    surface = _sampled(depth[..., 0], where, "nearest")
    near = (length - surface).abs() <= VISIBLE * length
    inside = (where.abs() < 1.0).all(-1)
    return facing * (near & inside), where


def _gathered(
    mesh: Mesh, maps: Float[Tensor, "N H W"], weights: Float[Tensor, "N V"], where: Float[Tensor, "N V 2"]
) -> tuple[Float[Tensor, "V"], Bool[Tensor, "V"]]:
    total = weights.sum(0)
    seen = total > 1e-6
    values = (weights * _sampled(maps, where, "bilinear")).sum(0) / total.clamp_min(1e-6)
    return _spread(mesh, values, seen), seen


def _spread(mesh: Mesh, values: Float[Tensor, "V"], known: Bool[Tensor, "V"]) -> Float[Tensor, "V"]:
    """Values of the unseen from their neighbours; the mean of all where no neighbour is ever reached."""
    values = torch.where(known, values, values[known].mean())
    a, b, c = mesh.faces.unbind(1)
    one, other = torch.cat([a, b, c, b, c, a]), torch.cat([b, c, a, a, b, c])
    for _ in range(100):
        if bool(known.all()):
            break
        mask = known.to(values)
        count = torch.zeros_like(values).index_add(0, one, mask[other])
        total = torch.zeros_like(values).index_add(0, one, (mask * values)[other])
        reached = ~known & (count > 0)
        if not torch.any(reached):
            break
        values = torch.where(reached, total / count.clamp_min(1.0), values)
        known = known | reached
    return values


def _sampled(pictures: Float[Tensor, "N H W"], where: Float[Tensor, "N V 2"], mode: str) -> Tensor:
    found = F.grid_sample(pictures[:, None], where[:, :, None], mode=mode, align_corners=False)
    return found[:, 0, :, 0]
