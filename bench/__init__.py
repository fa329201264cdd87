"""Compare union filesystems by the requests they cost, exactly, and by the time they take.

`python -m bench` from the repository. Not part of the package that is installed.
"""
