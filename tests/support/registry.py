"""A registry of container images on this host, with one image that holds next to nothing."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@contextmanager
def serving(name: str) -> Iterator[str]:
    """The image's reference for an engine of this host, which needs no TLS to ask loopback."""
    manifest, blobs = _image(name)
    found = {f"/v2/{name}/blobs/{digest}": (content, "application/octet-stream") for digest, content in blobs.items()}
    found |= {f"/v2/{name}/manifests/{one}": (manifest, MANIFEST) for one in ("1", digest_of(manifest))}
    found["/v2/"] = (b"{}", "application/json")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content, kind = found.get(self.path, (b"{}", "application/json"))
            self.send_response(200 if self.path in found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Docker-Content-Digest", digest_of(content))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/{name}:1"
        finally:
            server.shutdown()
            thread.join()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _image(name: str) -> tuple[bytes, dict[str, bytes]]:
    """The manifest, and what it names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry, content = tarfile.TarInfo("name"), name.encode()
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    layer = packed.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/name"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest_of(layer)}],
        }
    ).encode()
    return manifest, {digest_of(config): config, digest_of(layer): layer}
