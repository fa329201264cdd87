"""Containers: a stack of an image's layers under a writable one, and an OCI runtime on it.

What exists is used: crun or runc starts the processes, conmon holds their terminal, their log and
their end. What is here puts the root filesystem under them, and keeps what is known of each
container, so that any command finds it as it is, whatever process was killed meanwhile.
"""
