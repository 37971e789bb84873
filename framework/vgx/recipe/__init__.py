"""Recipes: typed YAML files that name every part and every number of an experiment.

yaml     YAML as plain data with the place of every value
model    the fields of a recipe, as pydantic models
lengths  schedules that last as long as the training
renamed  metrics that earlier versions called `fid` and `kid`, whatever features they compared
library  the recipes that come with vgx, by name
places   `--data`: which data set opens a path or a name
faults   errors with their places, and what may have been meant
load     files, `extends` and `--set` to a recipe
schema   the JSON Schema of a recipe, and a table of a part's fields
"""
