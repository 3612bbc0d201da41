"""
How long things take and how much memory, as ratios to Stable-Baselines3's A2C and PPO and sb3-contrib's TRPO, in one process
and by turns: whatever else the machine does, it does to all of them.
"""
