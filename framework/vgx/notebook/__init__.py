"""vgx for people who work in Python and in notebooks: values that show themselves.

html        HTML for notebooks, all text escaped
kernel      the notebook that this program runs in, if it does
images      images that show themselves
curves      the curves of a training as a small drawing
history     rows of numbers, as a frame of pandas where pandas is there
given       images that people give: a folder, files, arrays, tensors
run         a run: its history, its images, and how it shows itself
live        a training in a notebook: one output, replaced as it goes on
defined     parts that a cell or a script defined: their source as a plugin file
training    `vgx.run`, `vgx.resume`, `vgx.train`
checking    `vgx.check`, and what it gives
evaluation  `vgx.evaluate`, and what it gives
listing     `vgx.runs`, `vgx.recipes`
"""
