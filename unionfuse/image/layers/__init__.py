"""Layers as tars, and as directories.

    compression    what a layer tar is compressed with, both ways
    reader         the entries of a tar, as they come; writer makes one
    form           how a layer is kept in a directory by who may do what here
    apply          a tar to the directory of one layer
    index          what is in such a directory, with fingerprints, to verify it
    pack           an upper, or a whole tree, to a tar

To apply a layer to an empty directory:

    form = LayerForm.probe(fd)
    applied = apply_layer(LayerBlob(file, compression, digest, size, diff_id), fd, form)
    complete_implied(fd, applied.implied, lower_fds)        # the topmost lower first
    syncfs(fd)                                               # then rename it to its place

To make one of an upper:

    with blobs.new() as writer:
        compressor = Compressor(writer.write, "gzip")
        packed = pack_upper(stack, compressor.write, PackOptions(source_date_epoch=...))
        compressor.close()
        digest = writer.commit()                             # packed.diff_id is the other one
"""
