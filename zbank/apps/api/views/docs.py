"""The OpenAPI document, and a page to browse it: everything from this server, nothing from another host."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, abort

from zbank.apps.api.endpoint import encode_json
from zbank.apps.api.problems import STATUSES

#: of the Swagger UI, which the package flask-swagger-ui carries: all that the page loads
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'"
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>zbank: REST</title>
  <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
  <div id="page"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/begin.js"></script>
</body>
</html>
"""
BEGIN = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", validatorUrl: null, persistAuthorization: false, displayRequestDuration: true,
  defaultModelsExpandDepth: 0, docExpansion: "list"
});
"""


def make_blueprint(document: dict[str, Any]) -> Blueprint:
    """Serves `document` at /openapi.json, and the page at /docs."""
    blueprint = Blueprint("docs", __name__)
    text = encode_json(document)
    dist = files("flask_swagger_ui") / "dist"

    def add(path: str, name: str, body: bytes, content_type: str, policy: str = "") -> None:
        def view() -> Response:
            response = Response(body, content_type=content_type)
            if policy:
                response.headers["Content-Security-Policy"] = policy
            response.headers["Cache-Control"] = "no-cache"
            return response

        blueprint.add_url_rule(path, name, view, methods=["GET"], provide_automatic_options=False)

    add("/openapi.json", "openapi", text, "application/json")
    add("/docs", "page", PAGE.encode(), "text/html; charset=utf-8", POLICY)
    add("/docs/begin.js", "begin", BEGIN.encode(), "text/javascript")
    add("/docs/problems", "problems", _problems().encode(), "text/plain; charset=utf-8")

    @blueprint.get("/docs/<name>", provide_automatic_options=False)
    def asset(name: str) -> Response:
        if name not in ASSETS:
            abort(404)
        response = Response((dist / name).read_bytes(), content_type=ASSETS[name])
        response.headers["Cache-Control"] = "max-age=86400"
        return response

    return blueprint


def _problems() -> str:
    lines = ["The codes of problems, and their HTTP status (in a URL, what is not found is 404):", ""]
    lines += [f"{status}  {code}" for code, status in sorted(STATUSES.items(), key=lambda pair: (pair[1], pair[0]))]
    return "\n".join(lines) + "\n"
