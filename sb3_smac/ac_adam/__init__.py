from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.ac_adam.ac_adam import ACAdam

__all__ = ["ACAdam", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
