"""Making a month's partition takes along the events that lie in the default partition: a clock once ran ahead."""

from alembic import op

revision = "0005"
down_revision = "0004"

# The table is filled before it becomes a partition, because Postgres makes none for rows that the default one holds.
# Rows are deleted through the parent: partitions have row-level security and no policy. Whoever writes meanwhile waits
# at the default partition's lock.
_TAKING_ALONG = """
CREATE OR REPLACE FUNCTION mc_event_partitions(ahead integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE
    name text;
    first timestamptz;
    past timestamptz;
BEGIN
    FOR i IN 0..ahead LOOP
        first := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
        past := ((first AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
        name := 'event_' || to_char(first AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            LOCK TABLE event_default IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('CREATE TABLE %I (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format(
                'WITH moved AS (DELETE FROM event WHERE occurred_at >= $1 AND occurred_at < $2 RETURNING *) '
                'INSERT INTO %I SELECT * FROM moved', name
            ) USING first, past;
            EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, past);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        END IF;
    END LOOP;
END $$;
"""

_FROM_0001 = """
CREATE OR REPLACE FUNCTION mc_event_partitions(ahead integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
DECLARE
    month date;
    name text;
BEGIN
    FOR i IN 0..ahead LOOP
        month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i))::date;
        name := 'event_' || to_char(month, 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF event FOR VALUES FROM (%L) TO (%L)',
                name, month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00'
            );
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        END IF;
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Replace the function; its owner and grants stay."""
    _as_owner(_TAKING_ALONG)


def downgrade() -> None:
    """Put the function of 0001 back."""
    _as_owner(_FROM_0001)


def _as_owner(statement: str) -> None:
    op.execute("SET ROLE mission_control_owner")
    op.execute(statement)
    op.execute("RESET ROLE")
