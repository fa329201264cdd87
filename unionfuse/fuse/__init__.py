"""Serve a union to the kernel: mounting, sessions, the daemon and its record.

A protocol adapter only: what a union is, is defined in `unionfuse.union`.
"""
