"""Where images are kept: blobs by digest, layers by diff_id, and who needs them."""
