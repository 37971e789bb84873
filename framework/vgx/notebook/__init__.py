"""vgx for people who work in Python and in notebooks: values that show themselves.

html      HTML for notebooks, all text escaped
images    images that show themselves
curves    the curves of a training as a small drawing
history   rows of numbers, as a frame of pandas where pandas is there
given     images that people give: a folder, files, arrays, tensors
run       a run: its history, its images, and how it shows itself
"""
