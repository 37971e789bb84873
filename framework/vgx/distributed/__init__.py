"""Several processes that train as one: who they are, and how they share a minibatch.

state       which process this is, and how it shares a minibatch now
group       sums over the processes of a training
rows        the rows of a minibatch that a process has, and values over all of its rows
draws       random numbers that are drawn for the whole minibatch, and cut
norms       BatchNorm over the images of all processes
minibatch   a step whose rows the processes share, and the step of the whole minibatch
pieces      work on many images, cut into pieces of which each process computes its own
launcher    several processes on this machine for one command
processes   the processes of a launcher: how they begin, and what they agree on
"""
