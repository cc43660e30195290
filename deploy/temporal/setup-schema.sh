#!/bin/sh
# Makes Temporal's two databases, or brings them to the schema of this version. Safe to run again.
set -eu

setup() {
  database="$1" schema="$2"
  temporal-sql-tool --database "$database" create-database
  temporal-sql-tool --database "$database" setup-schema --version 0.0
  temporal-sql-tool --database "$database" update-schema --schema-name "postgresql/v12/$schema"
}

setup temporal temporal
setup temporal_visibility visibility
