#!/bin/sh
# Lays out a buf workspace: workspace.sh PROTO-DIR WORKSPACE-DIR.
set -eu
mkdir -p "$2/proto"
(cd "$1" && find keyferry -name '*.proto' -exec cp --parents {} "$2/proto" \;)
cp "$1/buf.yaml" "$2/buf.yaml"
go run ./ci/protos "$2/googleapis"
