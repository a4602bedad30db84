"""The hot functions, each written once in Warp for CPU and GPU, each with gradients."""
