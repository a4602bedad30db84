"""Renderers: pictures of a geometry."""
