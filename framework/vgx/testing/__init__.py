"""Testing: the contract of each kind of part, for the tests of plugin authors.

    from vgx.testing import check_part, full_step, small_model

contract   check_part, full_step, and what every part is held to
model      small_model, for samplers and metrics that are given one
case       one part under test, and what the checks share
processes  several processes inside of one program
shared     a part on two processes against one
data       data sets and augmentations
networks   encoders, decoders and discriminators
losses     losses
samplers   samplers
metrics    feature networks, metrics and trackers
"""

from vgx.testing.contract import check_part as check_part
from vgx.testing.contract import full_step as full_step
from vgx.testing.model import small_model as small_model
