"""Data: images decoded once, and minibatches of them.

sums      what a store must be: its description, sums and last check
cache     the folder of stores: who builds, who reads, and how much it may hold
decode    one image as plain bytes, whatever its mode, or why it cannot be used
classes   the names of labels, and how many images have each
left_out  images that are left out, by reason, and the settings to go on
order     the order of an epoch: a function of the seed, the epoch and the position
spill     decoded images of a stream on the disk, as many as fit
stream    images that are read and decoded when they are asked for
store     the store of decoded images: opened, built, looked up
batches   minibatches by number, and bytes as images in [0, 1]
split     which images no training sees
opening   the images of a source: from the store, or streamed
"""
