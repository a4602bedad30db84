"""Datamodules: what a step is given."""
