"""Prediction by batch: a model predicts a file or a dataset version, and the result is a dataset version."""
