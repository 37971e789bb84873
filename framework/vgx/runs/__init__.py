"""Runs: what lies in a run directory; nothing here builds a network.

reading          the files of a run, each read by a function of its own
directory        run directories: numbers, files, the log, the lock
moved            images of a run that lie elsewhere now
trust            which plugin files of a run are imported: those that this user trusts
best             the best measurement of each metric, in a log and in checkpoints
checkpoint       states, committed by a rename and verified before they are used
exported         folders that `vgx export` writes: a model without its run, verified
diffusers        autoencoders in folders of diffusers, read with bounds
hub              models of the hub: fetched once, bounded, verified
weights          weights to start from: of a run, a folder of vgx or diffusers, or a file
summed           tensors in files with a sum of their own
summary          each run as one line of a list
frames           grids drawn while training: which there are, and a time-lapse of them
import_weights   `.pt` files of other programs, converted to safetensors
"""
