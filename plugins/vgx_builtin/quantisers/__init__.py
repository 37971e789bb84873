"""Quantisers of encoders: what replaces their means by vectors of a codebook.

`encoder` has the encoder around all of them, `codebooks` those that learn their vectors, and
`grids` those whose vectors are fixed. A quantiser is a module from means [B, *Z] to a `Quantised`
posterior, with the number of its `codes` and with `vectors(indices)`.
"""
