"""Materials: what a point looks like, given its features."""
