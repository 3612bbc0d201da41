from sb3_smac.ac_adam.ac_adam import ACAdam
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["ACAdam", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
