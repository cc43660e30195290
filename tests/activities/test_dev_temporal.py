from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest

from tests.fixtures.servers import TemporalServer
from worker.dev.temporal import SEARCH_ATTRIBUTES, connect, ensure_search_attributes


async def test_it_serves_and_knows_our_search_attributes(temporal_server: TemporalServer) -> None:
    client = await connect(temporal_server.address)
    await ensure_search_attributes(client)
    request = ListSearchAttributesRequest(namespace=temporal_server.namespace)
    listed = await client.operator_service.list_search_attributes(request)
    assert set(SEARCH_ATTRIBUTES) <= set(listed.custom_attributes)
