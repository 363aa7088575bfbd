"""The documentation: a page that needs nothing but this service, and the document it is made from."""

from fastapi import Request
from starlette.responses import Response

from api.docs import page, policy
from api.routing import PUBLIC, Router

router = Router(tags=["Operation"])


@router.call("GET", "/docs", needs=PUBLIC, gives=(200, "text/html"), summary="Read this page")
async def docs() -> Response:
    """Show this page. It works without any other server."""
    headers = {"Content-Security-Policy": policy(), "Cache-Control": "no-cache"}
    return Response(page(), headers=headers, media_type="text/html")


@router.call("GET", "/openapi.json", needs=PUBLIC, gives=(200, "application/json"), summary="Get the OpenAPI document")
async def openapi(request: Request) -> Response:
    """Get the OpenAPI 3.1 document of this API: for clients, generators and tests."""
    return Response(request.app.openapi.text(), headers={"Cache-Control": "no-cache"}, media_type="application/json")
