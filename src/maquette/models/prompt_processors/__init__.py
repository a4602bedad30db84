"""Prompts as seen from where the camera stands."""
