"""A union filesystem for Linux: read-only layers under one writable upper, shown as one tree."""

__version__ = "0.1.0"
