#!/bin/sh
# Makes the namespace and its search attributes. Safe to run again.
set -eu

namespace="${TEMPORAL_NAMESPACE:-default}"

temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$namespace" --retention 72h

# The server's parts hear of a new namespace within some ten seconds.
tries=60
until temporal operator search-attribute list --namespace "$namespace" >/dev/null 2>&1; do
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || { echo "namespace $namespace does not become usable" >&2; exit 1; }
  sleep 1
done

for attribute in WorkspaceId MissionId Severity; do
  temporal operator search-attribute create --namespace "$namespace" --name "$attribute" --type Keyword
done
