"""What makes a model learn well: what is frozen, recomputed, compiled, and in which precision."""
