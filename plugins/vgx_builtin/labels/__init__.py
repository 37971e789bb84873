"""Labels of images: read, numbered and named.

values          labels as they are written, as numbers from 0 with names
class_folders   folders as classes
image_names     which image a name means
formats         the formats of a file of labels
beside          labels in a file beside the images
sources         sources of images with labels
"""
