"""Testing: the contract of each kind of part, for the tests of plugin authors.

    from vgx.testing import check_part, full_step

contract   check_part, full_step, and what every part is held to
case       one part under test, and what the checks share
data       data sets and augmentations
networks   encoders, decoders and discriminators
losses     losses
samplers   samplers
metrics    feature networks, metrics and trackers
"""

from vgx.testing.contract import check_part as check_part
from vgx.testing.contract import full_step as full_step
