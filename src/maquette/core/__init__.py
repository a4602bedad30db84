"""The leaf room: configuration, registry, schedules, base classes, randomness, devices, paths and errors."""
