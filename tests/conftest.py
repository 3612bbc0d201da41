"""What holds for every test."""

import torch as th

th.set_num_threads(1)  # the networks are tiny: threads only get into each other's way
