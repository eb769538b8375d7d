"""The HTTP API: OpenAI's conventions in front of one device's moot."""

from folkmoot.api.app import create_app as create_app
from folkmoot.api.config import ApiConfig as ApiConfig

__all__ = ["ApiConfig", "create_app"]
