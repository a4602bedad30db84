"""The leaf room: configuration, registry, schedules, base classes, random streams, devices, paths and errors."""
