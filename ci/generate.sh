#!/bin/sh
# Lints the .proto files and regenerates what comes from them: Go code beside them, and the
# OpenAPI document in gateway/. No network. With an argument, writes below that directory
# instead of the checkout.
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}

workspace=$(mktemp -d)
trap 'rm -rf "$workspace"' EXIT
ci/protos/workspace.sh proto "$workspace"

buf="go tool -modfile=ci/tools/go.mod buf"
$buf lint "$workspace/proto"
$buf generate "$workspace/proto" --template proto/buf.gen.yaml --output "$out"
