"""What a union of layers is: lookup, merged directories, copy-up, changes, attributes.

Synchronous and atomic: a method runs to its end without waiting for anybody, so between two
calls the tree is consistent and nothing here needs a lock. One file per verb, as in the
kernel's fs/overlayfs.
"""
