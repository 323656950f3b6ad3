"""This daemon's identity and the keys it gives to runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from managedd.model.keys import RUN_PREFIX, hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this daemon is: what it creates in an engine carries `instance_id`, and only that does it touch."""

    instance_id: str
    secret: bytes = field(repr=False)

    def run_key(self, execution_id: str) -> str:
        """The execution's key: the same after a restart, so that a container created before it still holds the right one."""
        digest = hmac.new(self.secret, execution_id.encode(), hashlib.sha256).digest()
        return RUN_PREFIX + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def run_key_hash(self, execution_id: str) -> str:
        """What the store keeps of it."""
        return hashed(self.run_key(execution_id))
