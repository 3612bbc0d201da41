"""The actor-critic loop that all algorithms share: knows Stable-Baselines3, and no Fisher."""
