"""A snapshotter for containerd: its layers and containers as stacks that unionfuse mounts."""
