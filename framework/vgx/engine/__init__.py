"""The engine: networks, and the step that trains them.

memory          what cannot fit is refused before it is allocated
surroundings    what parts must leave as it is: settings that all share, their inputs
build           a recipe's networks, and evaluation mode
averages        averaged weights, and BatchNorm statistics that fit them
optimizers      optimizers by name, learning rates, layouts in memory
losses          each player's terms, their weights, and their weighted sums
players         generator and discriminator: gradients and updates
finite          values that are not finite, found before any weight changes
stored_latents  the newest latents, which samplers draw from
starting        weights of another training: what fits a network, and what stays new
forward         the forward pass of all networks, which gives a `Step`
state           networks and optimizers as named tensors, for checkpoints
engine          the engine: the training step on one page
"""
