"""Runs: what lies in a run directory; nothing here builds a network.

directory        run directories: numbers, files, the log, the lock
best             the best measurement in a log
checkpoint       states, committed by a rename and verified before they are used
summed           tensors in files with a sum of their own
summary          a run's small files, and each run as one line of a list
frames           grids drawn while training: which there are, and a time-lapse of them
import_weights   `.pt` files of other programs, converted to safetensors
"""
