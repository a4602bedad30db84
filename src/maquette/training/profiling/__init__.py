"""Looking into a run: clocks of its parts, traces, memory, reads from the device, tensors that stay alive."""
