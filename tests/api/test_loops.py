"""The same failing call again and again is a loop, however its tool is spelt."""

import httpx2


async def test_a_tool_is_one_in_any_case(api: httpx2.AsyncClient) -> None:
    run = (await api.post("/api/v1/runs", json={})).json()["data"]["run_id"]
    for tool in ("Bash", "bash", "BASH", "bash", "Bash"):
        call = {"tool": tool, "error": "no such file", "duration_ms": 1}
        assert (await api.post(f"/api/v1/runs/{run}/tool-calls", json=call)).is_success
    assert (await api.get(f"/api/v1/runs/{run}")).json()["data"]["status"] == "blocked"
