"""Images in files: OCI image layouts, as a directory or a tar, and docker's archives."""
