"""OCI images: layers in, stacks out, images back.

Every thing that has a name here has the hash of its content for a name, and is verified
whenever it moves: blobs by their digest, layers by their diff_id, stacks by their chain_id.
"""
