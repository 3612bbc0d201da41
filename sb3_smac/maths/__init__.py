"""The natural-gradient maths: tensors and callables in, tensors out. Knows no environment and no Stable-Baselines3."""

from sb3_smac.maths.conjugate_gradient import ConjugateGradientResult, conjugate_gradient
from sb3_smac.maths.fisher import FisherVectorProduct
from sb3_smac.maths.flat import assign, flat_gradient, flatten, leaf_uses, unflatten
from sb3_smac.maths.gauss_newton import GaussNewtonStep, gauss_newton_step
from sb3_smac.maths.layers import DenseScores, LayerCall, LayerRecorder, LinearScores, ScaleCall
from sb3_smac.maths.mlp import ArrayMlp, Mlp, forward_hooks, has_hooks
from sb3_smac.maths.scores import Scores
from sb3_smac.maths.sherman_morrison import recentring_baseline, sherman_morrison_solve
from sb3_smac.maths.woodbury import random_groups, ridge_weights, woodbury_weights

__all__ = [
    "ArrayMlp",
    "ConjugateGradientResult",
    "DenseScores",
    "FisherVectorProduct",
    "GaussNewtonStep",
    "LayerCall",
    "LayerRecorder",
    "LinearScores",
    "Mlp",
    "ScaleCall",
    "Scores",
    "assign",
    "conjugate_gradient",
    "flat_gradient",
    "flatten",
    "forward_hooks",
    "gauss_newton_step",
    "has_hooks",
    "leaf_uses",
    "random_groups",
    "recentring_baseline",
    "ridge_weights",
    "sherman_morrison_solve",
    "unflatten",
    "woodbury_weights",
]
