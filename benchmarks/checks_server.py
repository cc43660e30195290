"""The API with a route that does nothing, and beside it the same route without a key: what the checks cost."""

import uvicorn

from api.app import create_app
from api.deps import INSIDE, Reader
from api.registry import VERSIONS
from api.routing import router
from models.schemas.envelope import Success
from models.settings import Settings

routes = router("missions")


@routes.get("/checked")
async def checked(call: Reader) -> Success[bool]:
    """Find out whose key it is, whether it may, and whether it has requests left; and do nothing."""
    return Success(data=True)


@routes.get("/unchecked", dependencies=[INSIDE])
async def unchecked() -> Success[bool]:
    """Do nothing, for anybody."""
    return Success(data=True)


def main(settings: Settings) -> None:
    """Serve both, as `python -m api` serves."""
    app = create_app(settings, {"v1": (routes, *VERSIONS["v1"])})
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=settings.api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(Settings())
