"""Geometries: where matter is, and its features."""
