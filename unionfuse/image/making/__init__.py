"""New images: of an upper and what it changes, of a rootfs, of all layers of another as one."""
