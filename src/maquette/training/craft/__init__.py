"""What makes a model learn well: what is frozen, averaged, recomputed, compiled, and in which precision."""
