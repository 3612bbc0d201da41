"""
The same results sooner: arithmetic that is written out for plain policies.

``SB3_SMAC_FAST=0`` in the environment, or ``sb3_smac.fast.enabled = False``, turns all of it off.
"""

import os

enabled = os.environ.get("SB3_SMAC_FAST", "1") != "0"
