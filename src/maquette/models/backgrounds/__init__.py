"""Backgrounds: what a ray sees behind the asset."""
