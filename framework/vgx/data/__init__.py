"""Data: images decoded once, and minibatches of them.

sums      what a store must be: its description, sums and last check
cache     the folder of stores: who builds, who reads, and how much it may hold
decode    one image as an array, whatever its mode, or why it cannot be used
pixels    values of more than 8 bits: their kinds, their range, floats in [0, 1]
classes   the names of labels, and how many images have each
unusable  images that are not used, by reason, and the settings to go on
pieces    neighbouring images decoded together by threads, and what is known of them
look      one look at the images of a store: flat, alike, dark, squashed; the background
order     the order of an epoch: a function of the seed, the epoch and the position
spill     decoded images of a stream on the disk, as many as fit
stream    images that are read and decoded when they are asked for
store     the store of decoded images: opened, built, looked up
peek      the first images of a source, decoded without the cache
batches   minibatches by number, and bytes as images in [0, 1]
split     which images no training sees
opening   the images of a source: from the store, or streamed
"""
