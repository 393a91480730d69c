"""What can be set about a node, where the values come from, and which of them do not go together.

Pure but for `loading`, which reads a file. Light to import: each command of a client needs it.
"""

from raftkv.runtime.settings.fields import SETTINGS, Settings
from raftkv.runtime.settings.loading import CONFIG_ENVIRONMENT, OTHER_ENVIRONMENT, load_settings
from raftkv.runtime.settings.schema import InitialMember, SettingSpec, Unit

__all__ = [
    "CONFIG_ENVIRONMENT",
    "OTHER_ENVIRONMENT",
    "SETTINGS",
    "InitialMember",
    "SettingSpec",
    "Settings",
    "Unit",
    "load_settings",
]
