"""The system calls that `os` lacks; the only home of ctypes and ioctl numbers.

Bytes and file descriptors in, `OSError` with the kernel's errno out, no policy.
"""
