"""Files in and out: meshes, textures, pictures, videos, arrays. Every write is whole, verified, or absent."""
