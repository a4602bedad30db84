"""The engine: what trains any model here, from a 3D asset to the small diffusion prior."""
