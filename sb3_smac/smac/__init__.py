from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.smac.smac import SMAC

__all__ = ["SMAC", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
