"""The built-in datasets."""

from vgx_builtin.datasets.drawn_faces import DrawnFaces as DrawnFaces
from vgx_builtin.datasets.huggingface import HuggingFace as HuggingFace
from vgx_builtin.datasets.image_folder import ImageFolder as ImageFolder
