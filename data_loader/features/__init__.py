"""Features: functions from audio to model input, registered by name.

A feature is one file in this folder with one function under `register_feature`. `methods` finds it by itself.
"""

from data_loader.features.feature import Feature, methods, register_feature

__all__ = ["Feature", "methods", "register_feature"]
