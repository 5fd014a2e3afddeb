"""The API's description for people; nothing of it comes from outside."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

STATIC = "/docs/static"
POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self' blob:; connect-src 'self'"
"""The browser refuses whatever the pages would load from elsewhere."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> Response:
    """Where a newcomer begins."""
    return RedirectResponse("/docs")


@router.get("/docs")
async def swagger(request: Request) -> Response:
    """Swagger UI."""
    root = _root(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Roadcast API",
        swagger_js_url=f"{root}{STATIC}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{STATIC}/swagger-ui.css",
        swagger_favicon_url=f"{root}{STATIC}/favicon.png",
    )
    return _closed(page)


@router.get("/redoc")
async def redoc(request: Request) -> Response:
    """ReDoc."""
    root = _root(request)
    page = get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title="Roadcast API",
        redoc_js_url=f"{root}{STATIC}/redoc.standalone.js",
        redoc_favicon_url=f"{root}{STATIC}/favicon.png",
        with_google_fonts=False,
    )
    return _closed(page)


def mount_files(app: FastAPI) -> None:
    """Serve the pages' scripts and styles."""
    app.mount(STATIC, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-files")


def _root(request: Request) -> str:
    """The path under which a proxy serves the app."""
    path: str = request.scope.get("root_path", "")
    return path.rstrip("/")


def _closed(page: Response) -> Response:
    page.headers["Content-Security-Policy"] = POLICY
    return page
