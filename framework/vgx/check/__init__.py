"""Checks: everything that can be known before the first step.

blame         which part of which plugin raised an error
attempt       calls of parts: whatever fails names the part
trials        what `auto` is in precision and compiling; the time of a step
audit         which term trains which network, and faults in that
hidden_state  what parts change while they work and no checkpoint holds
changing      networks and augmentations that change with time: what they change is saved
networks      augmentations, networks and the sampler on a few images
prior         the prior of the second stage on a few images
terms         the terms of the losses, and what each depends on
metrics       metrics and their features on a few random images
examine       one small batch through everything: contracts, losses, audit
"""
