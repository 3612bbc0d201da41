"""The natural-gradient maths: tensors and callables in, tensors out. Knows no environment and no Stable-Baselines3."""

from sb3_smac.maths.conjugate_gradient import ConjugateGradientResult, conjugate_gradient
from sb3_smac.maths.fisher import FisherVectorProduct
from sb3_smac.maths.flat import assign, flat_gradient, flatten, unflatten
from sb3_smac.maths.scores import Scores
from sb3_smac.maths.sherman_morrison import recentring_baseline, sherman_morrison_solve

__all__ = [
    "ConjugateGradientResult",
    "FisherVectorProduct",
    "Scores",
    "assign",
    "conjugate_gradient",
    "flat_gradient",
    "flatten",
    "recentring_baseline",
    "sherman_morrison_solve",
    "unflatten",
]
