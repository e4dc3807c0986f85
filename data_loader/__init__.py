"""Annotations, audio, features, splits and the loaders that bring them to a model."""

from utils.registry import Registry

data_loaders: Registry = Registry("data loader", package="data_loader")
