"""The URLs under which clients find a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.ids import DEFAULT_WORKSPACE_ID

if TYPE_CHECKING:
    from managedd.api.context import Services
    from managedd.store.workspaces import Workspace


def base_url(services: Services) -> str:
    """PREFECT_CLOUD_API_URL of this daemon: the API without a workspace."""
    server = services.settings.server
    return str(services.facts.get("url") or f"http://{server.host}:{server.port}/api")


def workspace_url(services: Services, workspace: Workspace) -> str:
    """PREFECT_API_URL of the workspace."""
    base = base_url(services)
    if workspace.id == DEFAULT_WORKSPACE_ID:
        return base
    return f"{base}/accounts/{workspace.account_id}/workspaces/{workspace.id}"
