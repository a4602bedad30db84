"""Toyworld: procedural, captioned, coloured 3D toys and pictures of them."""
