"""The API's own documents, for whoever wants to read them: no key, and counted like all that take none."""

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse

from api.deps import PUBLIC
from api.routing import Route
from models.schemas.links import API_DOCS

routes = APIRouter(route_class=Route, tags=["documents"], dependencies=[PUBLIC], include_in_schema=False)
OPENAPI = "/api/openapi"


@routes.get(OPENAPI)
async def openapi(request: Request) -> Response:
    """Describe the API for programs."""
    return JSONResponse(request.app.openapi())


@routes.get(API_DOCS)
async def api_docs(request: Request) -> Response:
    """Describe the API for people."""
    return get_swagger_ui_html(openapi_url=request.scope.get("root_path", "") + OPENAPI, title=request.app.title)
