"""Images from Dockerfiles.

dockerfile    the text as instructions, read by BuildKit's own parser
words         variables and quotes in them
check         what is not supported, before anything is done
stages        which stages there are, and which are needed
ignore        what .dockerignore leaves out of the context
sources       what COPY and ADD take: patterns, trees, the digest of their content
copying       putting it into the tree that is mounted
draft         the image so far: its layers, its config, its history
metadata      the instructions that change the config alone
layering      a tree to change, and the layer of what was changed
running       RUN
options       what a build is told, and to whom it tells how it goes
builder       all of it in order, with the cache
"""
