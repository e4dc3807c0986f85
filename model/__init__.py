"""Architectures, losses and metrics, each registered by name on import of its file."""

from utils.registry import Registry

architectures: Registry = Registry("architecture", package="model")
losses: Registry = Registry("loss", package="model")
metrics: Registry = Registry("metric", package="model")
