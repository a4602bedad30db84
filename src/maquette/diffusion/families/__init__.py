"""One file for each family of diffusion models: how a model of it is asked for the noise in a picture."""
