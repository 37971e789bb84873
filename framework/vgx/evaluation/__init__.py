"""Evaluation: a run measured by metrics, with their spread over seeds.

latents   metrics of latents: KL, distance from the prior, disentanglement
features  the real images to compare with, and features of images, each computed once
metrics   metrics of reconstructions and of samples
tables    the results as tables
evaluate  `vgx eval`: all of these for one run, written to `evaluation.json`
choice    what an evaluation measures, from names as users write them
"""
