"""Read, check and change uppers that are not mounted; knows layers, and nothing of mounts."""
