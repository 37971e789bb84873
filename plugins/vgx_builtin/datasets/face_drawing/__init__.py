"""Draw an anime-like face from a few dozen numbers, the same pixels on every machine.

`factors` defines the numbers and their ranges, and `choice` chooses them by seed and index. `draw`
draws the whole face on a `sheet`: `scene` has background, clothes and accessory, `face`, `eyes`,
`hair` and `fringe` have the head. `colours` and `curves` are what all of them draw with. In these
modules `f` is a face's factors and `c` its palette.
"""

from vgx_builtin.datasets.face_drawing.choice import draw_factors
from vgx_builtin.datasets.face_drawing.draw import DRAWING_VERSION, draw_face
from vgx_builtin.datasets.face_drawing.factors import RANGES, FaceFactors

__all__ = ("DRAWING_VERSION", "RANGES", "FaceFactors", "draw_face", "draw_factors")
