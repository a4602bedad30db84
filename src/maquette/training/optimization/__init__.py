"""Losses by name, optimizers with their parameter groups, and schedulers."""
