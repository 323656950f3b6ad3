"""What is made once for all who see the same page knows none of them."""

from __future__ import annotations

from dataclasses import fields

from managedd.api.context import Actor
from managedd.model.access import Level
from managedd.ui.live import as_any


def test_two_keys_of_one_role_are_one_and_nothing_is_left_of_either() -> None:
    one = Actor(kind="key", level=Level.VIEW, name="a", workspace_id="w", account_id="x", key_id="1", session_id="s")
    two = Actor(kind="key", level=Level.VIEW, name="b", workspace_id="w", account_id="x", key_id="2")
    assert as_any(one) == as_any(two)
    known = {each.name for each in fields(Actor) if getattr(as_any(one), each.name)}
    assert known == {"kind", "level", "workspace_id", "account_id"}
    assert as_any(Actor(kind="key", level=Level.RUN, workspace_id="w", account_id="x")) != as_any(one)
