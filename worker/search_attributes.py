"""Registers in Temporal what our workflows are found by; doing it on each start changes nothing."""

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from models.contracts.search_attributes import SearchAttribute

log = structlog.get_logger()


async def ensure_search_attributes(client: Client) -> None:
    """Register those that are missing in the client's namespace.

    Where we may not, as in Temporal Cloud, missions run without them, and an operator adds them by hand.
    """
    try:
        await _register_missing(client)
    except RPCError as error:
        wanted = ", ".join(SearchAttribute)
        log.warning("search_attributes_not_registered", error=error.message, add_as_keywords=wanted)


async def _register_missing(client: Client) -> None:
    operator = client.operator_service
    listed = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    missing = [name.value for name in SearchAttribute if name not in listed.custom_attributes]
    if missing:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await operator.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword))
        )
