from sb3_smac.ac_cg.ac_cg import ACCG
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["ACCG", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
