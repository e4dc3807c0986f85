"""Adapters: functions from a data set's folder to a table of labelled sounds, registered by name.

An adapter is one file in this folder with one function under `register_adapter`. `adapters` finds it by itself.
"""

from data_loader.adapters.adapter import Adapter, adapters, register_adapter

__all__ = ["Adapter", "adapters", "register_adapter"]
