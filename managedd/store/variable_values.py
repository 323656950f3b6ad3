"""The workspace's variables as a mapping that asks the store only for what is looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from managedd.store.database import Tx


class VariableValues(Mapping[str, Any]):
    """Name → value; lives as long as its transaction."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    def __getitem__(self, name: str) -> Any:
        row = self._tx.one(
            "SELECT value FROM variables WHERE workspace_id = ? AND name = ?", (self._tx.workspace, name)
        )
        if row is None:
            raise KeyError(name)
        return orjson.loads(row[0])

    def __iter__(self) -> Iterator[str]:
        rows = self._tx.all("SELECT name FROM variables WHERE workspace_id = ? ORDER BY name", (self._tx.workspace,))
        return iter([row[0] for row in rows])

    def __len__(self) -> int:
        total: int = self._tx.scalar("SELECT count(*) FROM variables WHERE workspace_id = ?", (self._tx.workspace,))
        return total
