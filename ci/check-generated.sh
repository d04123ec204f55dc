#!/bin/sh
# Demands that what generate.sh writes is what the checkout has, and that the API has not
# broken what the last release promised (the last tag v*; nothing before the first one).
set -eu
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
ci/generate.sh "$fresh/out"

status=0
for file in $(cd "$fresh/out" && find . -type f); do
	cmp -s "$fresh/out/$file" "$file" || { echo "$file is out of date: run ci/generate.sh" >&2; status=1; }
done
for file in $(find ./proto -name '*.pb.go' -o -name '*.pb.gw.go'); do
	test -e "$fresh/out/$file" || { echo "$file has no .proto any more: delete it" >&2; status=1; }
done

if release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
	mkdir "$fresh/release"
	git archive "$release" proto | tar -x -C "$fresh/release"
	ci/protos/workspace.sh "$fresh/release/proto" "$fresh/old"
	ci/protos/workspace.sh proto "$fresh/new"
	go tool -modfile=ci/tools/go.mod buf breaking "$fresh/new/proto" --against "$fresh/old/proto" || status=1
fi
exit $status
