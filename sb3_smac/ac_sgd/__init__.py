from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.ac_sgd.ac_sgd import ACSGD

__all__ = ["ACSGD", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
