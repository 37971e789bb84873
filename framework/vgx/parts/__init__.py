"""Parts: the classes that a recipe names, and where they come from.

documented   models whose fields are documented by the docstrings below them
values       shapes, and numbers that change with the step
base         what all kinds of part share: fields, validation, near names
kinds        the eleven kinds of part: read it before you write a plugin
contract     what tensors and scores of parts must be
hooks        the hooks that a plugin implements
plugin_file  plugin files: their bytes, and a module that is made of them
registry     which parts are installed, and which plugin each comes from
scaffold     the files of a new plugin
"""
