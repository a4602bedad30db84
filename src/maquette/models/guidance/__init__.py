"""Critics that say how a picture should change."""
