import psycopg

from tests.fixtures.servers import PostgresServer, plain


def test_it_answers_as_the_owner(postgres_server: PostgresServer) -> None:
    with psycopg.connect(plain(postgres_server.url)) as connection:
        assert connection.execute("SELECT current_user, 1").fetchone() == ("postgres", 1)


def test_databases_are_new(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with psycopg.connect(plain(url)) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
