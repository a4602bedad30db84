"""What the engine does between the steps; each file is one concern."""
