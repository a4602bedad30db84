"""What a system writes, by the names this ecosystem knows."""
