"""The second stage: the codes of a finished autoencoder, and a prior that learns them.

folder     folders of codes: written in shards, verified when they are read
kept       what a prior learned, as a file of a run or of an exported model
codes      the codes of images, as the final encoder gives them
fitting    the training of a prior
running    `vgx fit` and `vgx encode`
"""
