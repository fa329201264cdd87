"""One directory tree on disk and the markers in it; knows nothing of merging."""
