"""Training: a run from beginning to end.

environment  what a run is made with: versions, device, images; and room on the disk
processes    what several processes of one training agree on, before it and when it goes on
progress     image grids while training
monitors     warnings about a training that fails without an error
trackers     trackers of a run: opened, given what the log gets, closed
state        a run that is being trained, and what whoever trains it gets of each step
loop         the training loop: step, log, draw, save, stop
signals      signals that end a training after the current step
profiler     a profile of a few steps
ending       the end of a training: `ended.json`, and plugins are called
preparing    what stands before a training: the data set is opened, all is tried on a few images
resuming     whether a stopped run may go on with a recipe, and what is noted of it
session      `vgx run` and `vgx resume`: check, build, train; and continue
fork         a new run that goes on from a checkpoint of another run
verify       whether a run repeats: its last steps once more
replay       one step once more: its images, terms and gradients
"""
