"""Metrics on finished assets."""
