from sb3_smac.ac_sgd.ac_sgd import ACSGD
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["ACSGD", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
