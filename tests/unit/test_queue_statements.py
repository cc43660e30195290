"""What the statements of the queue are to psycopg."""

from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from models.store.queue_statements import CLAIM


def test_a_claim_is_short_enough_to_be_read_once() -> None:
    assert len(CLAIM) <= MAX_CACHED_STATEMENT_LENGTH
