#!/bin/sh
# Two Regions on SoftHSM, their ceremonies, and a thief with both user PINs.
#
# Usage: ci/demo-boundary.sh [keyferry-ceremony]
# Without an argument the tool is built first. Everything happens in a directory of its own
# under $TMPDIR, which is removed at the end. Exit 0 only if the tokens refused everything
# that they must refuse.
set -eu

cd "$(dirname "$0")/.."
work=$(mktemp -d)
work=$(cd "$work" && pwd -P)
accepting=
cleanup() {
	for pid in $accepting; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

tool=${1:-$work/keyferry-ceremony}
[ $# -gt 0 ] || go build -o "$tool" ./cmd/keyferry-ceremony

for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib64/softhsm/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
	[ -e "$module" ] && break
done
if ! [ -e "$module" ] || ! command -v softhsm2-util >/dev/null; then
	echo "SoftHSM is missing. On Debian: apt-get install softhsm2" >&2
	exit 1
fi

# short leaves this machine's paths out of what is printed.
short() { sed "s,$work/,,g; s,$tool,keyferry-ceremony,g"; }

# show prints a command, runs it and prints what it said.
show() {
	echo "\$ $*" | short
	status=0
	"$@" >"$work/said" 2>&1 || status=$?
	short <"$work/said"
	return $status
}

# beside REGION: the flags that choose that Region's token.
beside() { echo "--region-dir $work/$1 --module $module --profile softhsm2 --token $1 --pin-file $work/$1.pin"; }

# at REGION COMMAND...: keyferry-ceremony beside that Region's token. Paths hold no spaces.
at() {
	region=$1
	shift
	# shellcheck disable=SC2046
	show "$tool" "$@" $(beside "$region")
}

pin() { od -An -N8 -tx1 /dev/urandom | tr -d ' \n'; }
fingerprint() { sed -n 's/^descriptor fingerprint //p' "$work/$1.init"; }

regions="eu-paris-1 us-east-1"
umask 077
mkdir "$work/tokens"
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$work/tokens" >"$work/softhsm2.conf"
export SOFTHSM2_CONF="$work/softhsm2.conf"

echo "== Two tokens, two Regions, one operator in each"
for r in $regions; do
	pin >"$work/$r.pin"
	pin >"$work/$r.so-pin"
	softhsm2-util --init-token --free --label "$r" --pin "$(cat "$work/$r.pin")" --so-pin "$(cat "$work/$r.so-pin")" >/dev/null
	show "$tool" operator-key "$work/$r.operator"
	printf 'threshold: 1\noperators:\n  - name: demo\n    key: %s.operator.pub\n' "$r" >"$work/$r.operators.yaml"
	at "$r" init --region "$r" --operators "$work/$r.operators.yaml" >"$work/$r.init"
	cat "$work/$r.init"
done
show "$tool" pin "$work/us-east-1/region.json" --region-dir "$work/eu-paris-1" --yes --fingerprint "$(fingerprint us-east-1)"
show "$tool" pin "$work/eu-paris-1/region.json" --region-dir "$work/us-east-1" --yes --fingerprint "$(fingerprint eu-paris-1)"

# ceremony SOURCE DESTINATION: accept waits while establish answers.
ceremony() {
	echo "== Transport keys from $1 to $2"
	offer=$work/$1-$2.offer
	set -- "$1" "$2" accept --from "$1" --offer "$offer" --package "$work/$1-$2.package" --operator-key "$work/$2.operator"
	echo "\$ $tool $(shift 2; echo "$*") $(beside "$2") &" | short
	# shellcheck disable=SC2046
	"$tool" $(shift 2; echo "$*") $(beside "$2") >"$work/accept.out" 2>&1 &
	accepting=$!
	while ! [ -e "$offer" ]; do
		kill -0 "$accepting" 2>/dev/null || { cat "$work/accept.out"; exit 1; }
		sleep 0.1
	done
	until grep -q '^waiting for .*\.package' "$work/accept.out"; do sleep 0.1; done
	said=$(sed -n 's/^offer fingerprint //p' "$work/accept.out")
	at "$1" establish "$offer" --package "$work/$1-$2.package" --so-pin-file "$work/$1.so-pin" --yes --fingerprint "$said"
	status=0
	wait "$accepting" || status=$?
	accepting=
	echo "What accept said:"
	short <"$work/accept.out"
	[ $status -eq 0 ]
}
ceremony eu-paris-1 us-east-1
ceremony us-east-1 eu-paris-1

echo "== What the tokens hold"
for r in $regions; do at "$r" list; done

echo "== The thief has each user PIN, and records what can be wrapped with it"
for r in $regions; do at "$r" thief --record "$work/$r.recorded"; done
for r in $regions; do
	at "$r" thief --recorded "$work/eu-paris-1.recorded" --recorded "$work/us-east-1.recorded" \
		--package "$work/eu-paris-1-us-east-1.package" --package "$work/us-east-1-eu-paris-1.package"
done
echo "== And still: SoftHSM's tokens are files. Whoever has them and a PIN has the keys (docs/trust.md)."
for r in $regions; do at "$r" list >/dev/null; done
echo "boundary held"
