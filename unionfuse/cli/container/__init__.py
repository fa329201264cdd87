"""The commands about containers: one file a command, each with a `command`."""
