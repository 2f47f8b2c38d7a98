"""Credentials in addresses: used where they are needed, written nowhere."""

from __future__ import annotations

import re

_USER = re.compile(r"://[^/\s]*@")  # user:password@ of an address
_QUERY = re.compile(r"([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """A text whose addresses name neither user nor password nor token."""
    return _QUERY.sub(r"\1***", _USER.sub("://", text))
