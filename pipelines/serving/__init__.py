"""The inference server: `python -m pipelines.serving` serves one bundle over the Open Inference Protocol v2.

This package may import only what `requirements/serving.in` lists: the serving image installs nothing else.
"""
