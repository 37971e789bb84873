"""The built-in augmentations."""

from vgx_builtin.augmentations.ada import Ada as Ada
from vgx_builtin.augmentations.color_jitter import ColorJitter as ColorJitter
from vgx_builtin.augmentations.horizontal_flip import HorizontalFlip as HorizontalFlip
from vgx_builtin.augmentations.occlusion import Cutout as Cutout
from vgx_builtin.augmentations.occlusion import Translation as Translation
from vgx_builtin.augmentations.rotation import Rotation as Rotation
