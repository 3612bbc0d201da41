"""The paper's protocol as a program: ``python -m sb3_smac.benchmark``."""
