"""The HTTP API: OpenAI's conventions in front of one device's moot."""

from folkmoot.api.app import create_app as create_app
from folkmoot.api.config import ApiConfig as ApiConfig
from folkmoot.api.desk import Desk as Desk

__all__ = ["ApiConfig", "Desk", "create_app"]
