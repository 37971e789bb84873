"""Data: pictures decoded once, and minibatches of them."""
