"""The version, in one place: the build reads it from this line without importing anything."""

__version__ = "0.1.0"
