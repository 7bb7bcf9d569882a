"""The inference server: one bundle over the Open Inference Protocol v2. `python -m pipelines.serving` runs it.

What the serving image installs (`requirements/serving.in`) is all that this package may import.
"""
