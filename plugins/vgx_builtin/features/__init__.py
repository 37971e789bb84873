"""Networks that metrics see pictures with."""
