"""Parts: what a recipe is made of, and where they come from.

kinds      the ten kinds of part: the page to read before writing a plugin
contract   what tensors and scores of parts must be
registry   which parts are installed, and whose they are
hooks      what a plugin implements
scaffold   a plugin's package as one begins it
"""
