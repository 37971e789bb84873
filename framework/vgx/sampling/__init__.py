"""Sampling: a trained run as networks, and new images from it.

model   a run's networks in evaluation mode: encode, decode
draw    new images: the one place where a sampler is prepared and draws
"""
