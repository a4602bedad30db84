"""Pure functions on tensors: cameras, rays, volumes, shading, losses, meshes, images."""
