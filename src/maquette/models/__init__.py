"""What a run is made of: geometry, material, background, renderer, prompt processor, guidance, exporter."""
