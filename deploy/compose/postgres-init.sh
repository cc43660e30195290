#!/bin/sh
# First start of PostgreSQL: one role and database for the product, one role for Temporal, which makes its own databases.
set -eu

psql --username "${POSTGRES_USER:-postgres}" --set ON_ERROR_STOP=1 \
  --set product="$MISSION_CONTROL_PASSWORD" --set temporal="$TEMPORAL_PASSWORD" <<'SQL'
CREATE ROLE mission_control LOGIN CREATEROLE PASSWORD :'product';
CREATE DATABASE mission_control OWNER mission_control;
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'temporal';
SQL
