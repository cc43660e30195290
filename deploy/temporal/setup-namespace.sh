#!/bin/sh
# Makes the namespace and its search attributes. Safe to run again.
set -eu

namespace="${TEMPORAL_NAMESPACE:-default}"

temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$namespace" --retention 72h

for attribute in WorkspaceId MissionId Kind Phase; do
  temporal operator search-attribute create --namespace "$namespace" --name "$attribute" --type Keyword
done
