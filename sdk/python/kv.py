"""The plugin's own state, which is kept with the batch; `allow.kv` in the configuration grants it.

A plugin that imports this module also says `wants = ["kv"]`.
"""

from wit_world.imports.kv import delete, get, get_many, set

__all__ = ["delete", "get", "get_many", "set"]
