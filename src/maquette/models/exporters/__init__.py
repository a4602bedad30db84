"""From a finished representation to things that can be written to files."""
