"""A process with everything loaded, which forks in place of a fresh interpreter.

To start Python and load what serves a mount takes some 20 times as long as to mount. An engine that
mounts again and again has the second mount start a server, and every further one is made by a
child of it: `client` asks, `server` forks, and `identity` makes sure that nobody can tell the
child from the process that asked.
"""
