"""Data sets in rows, here or on the hub: which columns they have, and how they are read.

hub_names        names of data sets of the hub, as people copy them
column_types     what columns hold, in words
columns          the columns of a data set
image_columns    which column holds the images
readme           configurations in the README.md of a local data set
layout           which files are which split
pages            how large the pages of a parquet file become
parquet          rows of parquet files
ranges           files of the hub, read in ranges
remote           parquet files on the hub
arrow            rows of Arrow files
file_checks      files that the library `datasets` opens, looked at before
library          files that the library `datasets` opens
local            which of these reads a local data set
arrays           images that are numbers in a column
row_images       the images in the rows
row_groups       row groups of parquet files
stream_sources   sources of images in row groups
streams          row groups that are streamed
"""
