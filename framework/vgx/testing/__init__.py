"""Testing: the contract of each kind of part, for the tests of whoever writes one."""

from vgx.testing.contract import check_part as check_part
from vgx.testing.contract import full_step as full_step
