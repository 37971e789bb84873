"""The engine: networks, and the step that trains them."""
