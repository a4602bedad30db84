"""Diffusion models as critics of pictures: loading, text, noise prediction, and gradients from it."""
