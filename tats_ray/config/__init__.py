"""Typed configuration tree. Imports neither torch nor Ray, so a mistake shows in milliseconds."""

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.load import config_from_dict, dump_config, load_config
from tats_ray.config.tree import Config

__all__ = ["Config", "TokenGrid", "config_from_dict", "dump_config", "load_config"]
