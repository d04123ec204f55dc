#!/bin/sh
# make demo: three Regions on SoftHSM, one multi-Region key from create to decrypt elsewhere.
# Every command is printed as it runs. Leaves no process and no file.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/bin:$PATH
begin=$(date +%s)
work=$(mktemp -d)
cd "$work"

finish() {
	status=$?
	cd /
	keyferry-dev --dir "$work/.keyferry" down --purge >"$work/down.log" 2>&1 || { status=1; cat "$work/down.log" >&2; }
	# Daemons name their configuration on their command line, so one that is left shows here.
	if left=$(echo "$work" | grep -lsFf - /proc/[0-9]*/cmdline); then
		echo "left behind: $left" >&2
		status=1
	fi
	rm -rf "$work"
	[ "$status" = 0 ] || echo "demo: failed" >&2
	exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM

title() { printf '\n# %s\n' "$*"; }

# run prints a command as it would be typed, and runs it.
run() {
	printf '$ %s\n' "$1"
	eval "$1"
}

# refused runs a command that must fail with this exit code.
refused() {
	code=0
	printf '$ %s\n' "$2"
	eval "$2" || code=$?
	[ "$code" = "$1" ] || { echo "demo: exit code $code, want $1" >&2; exit 1; }
}

# await repeats a command until it succeeds, for half a minute.
await() {
	for _ in $(seq 300); do
		eval "$1" && return
		sleep 0.1
	done
	echo "demo: not within half a minute: $1" >&2
	exit 1
}

same() {
	cmp "$1" "$2" && echo "$1 and $2 are the same, byte for byte"
}

title "Three Regions: a token each, ceremonies for all six ordered pairs, three daemons"
run 'keyferry-dev up --regions eu-paris-1,us-east-1,ap-tokyo-1'
run 'eval "$(keyferry-dev env)"'
run 'keyferry whoami'
run 'keyferry region show'

title "A multi-Region key, made in Paris and replicated"
run 'key=$(keyferry key create --multi-region --alias payroll --region eu-paris-1)'
run 'keyferry key replicate payroll --to us-east-1 --wait'
run 'keyferry key replicate payroll --to ap-tokyo-1 --wait'
run 'keyferry key replicas payroll'
for region in eu-paris-1 us-east-1 ap-tokyo-1; do
	run "keyferry key show \$key --region $region | grep -E '^(key ID|material ID|state|exportability)'"
	keyferry key show "$key" --region "$region" | grep -E '^(key|material) ID' >"$region.ids"
done
cmp eu-paris-1.ids us-east-1.ids
cmp eu-paris-1.ids ap-tokyo-1.ids

title "Encrypt in Paris with the command line (gRPC), decrypt in Tokyo with curl (REST)"
run 'head -c 3000 /dev/urandom > salaries'
run 'keyferry encrypt payroll -c env=prod --region eu-paris-1 < salaries > salaries.kf'
run 'printf "{\"ciphertextBlob\":\"%s\",\"encryptionContext\":{\"env\":\"prod\"}}" "$(base64 -w0 salaries.kf)" > request.json'
run 'curl -sS --fail --cacert "$KEYFERRY_CA" --cert "$KEYFERRY_CERT" --key "$KEYFERRY_KEY" -H "Content-Type: application/json" -d @request.json "$KEYFERRY_REST_AP_TOKYO_1/v1/decrypt" > answer.json'
run 'sed "s/.*\"plaintext\": *\"\([^\"]*\)\".*/\1/" answer.json | base64 -d > salaries.tokyo'
run 'same salaries salaries.tokyo'
refused 5 'keyferry decrypt -c env=test --region us-east-1 < salaries.kf > /dev/null'

title "Sign in us-east-1, verify in Paris and with openssl"
run 'signing=$(keyferry key create --multi-region --spec ECC_NIST_P256 --usage SIGN_VERIFY --alias release --region us-east-1)'
run 'keyferry key replicate release --to eu-paris-1 --wait --region us-east-1'
run 'keyferry sign release --region us-east-1 < salaries > salaries.sig'
run 'keyferry verify $signing --signature salaries.sig --region eu-paris-1 < salaries'
run 'keyferry key public $signing --region eu-paris-1 > release.pem'
run 'openssl dgst -sha256 -verify release.pem -signature salaries.sig salaries'

title "New material for the symmetric key: used once every Region holds it, and the old one opens what it encrypted"
run 'keyferry key rotate $key --region eu-paris-1'
for region in eu-paris-1 us-east-1 ap-tokyo-1; do
	await "keyferry key show $key --region $region | grep '^material ID' >$region.now && ! grep -qFf $region.now $region.ids"
	run "keyferry key show \$key --region $region | grep '^material ID'"
done
cmp eu-paris-1.now us-east-1.now
cmp eu-paris-1.now ap-tokyo-1.now
run 'keyferry decrypt -c env=prod --region us-east-1 < salaries.kf > salaries.east'
run 'same salaries salaries.east'

title "The primary key of the signing key moves to Paris, and the one that is left in us-east-1 is scheduled for deletion"
run 'keyferry key promote release --to eu-paris-1 --wait --region us-east-1'
run 'keyferry key delete $signing --in 7d --region us-east-1'
refused 1 'keyferry sign $signing --region us-east-1 < salaries > /dev/null'
run 'keyferry sign $signing --region eu-paris-1 < salaries > salaries.sig2'
run 'openssl dgst -sha256 -verify release.pem -signature salaries.sig2 salaries'
run 'keyferry key undelete $signing --region us-east-1'

title "A second principal is refused, and the audit log shows it"
run 'bob=$(keyferry-dev cert --name bob)'
refused 3 'KEYFERRY_CONFIG=$bob keyferry decrypt -c env=prod --region eu-paris-1 < salaries.kf > /dev/null'
await 'grep -q user/bob .keyferry/regions/eu-paris-1/audit/*.jsonl' # within a second
run 'grep user/bob .keyferry/regions/eu-paris-1/audit/*.jsonl | tail -n 1'
run 'keyferry audit verify .keyferry/regions/eu-paris-1/audit --descriptor .keyferry/regions/eu-paris-1/region/region.json'

title "A thief who has the user PIN of Paris is refused by the token"
cat >thief <<END
#!/bin/sh
dir=.keyferry/regions/\$1
label=\$1
shift
SOFTHSM2_CONF=\$dir/softhsm/softhsm2.conf exec keyferry-ceremony thief "\$@" --region-dir \$dir/region --profile softhsm2 \\
	--module $(sed -n 's/^ *module: //p' .keyferry/regions/eu-paris-1/keyferryd.yaml) --token \$label --pin-file \$dir/softhsm/\$label.pin
END
chmod +x thief
run 'cat thief'
for region in eu-paris-1 us-east-1 ap-tokyo-1; do
	run "./thief $region --record $region.loot > $region.recorded"
done
run './thief eu-paris-1 --recorded eu-paris-1.loot --recorded us-east-1.loot --recorded ap-tokyo-1.loot --package .keyferry/ceremonies/us-east-1-to-eu-paris-1/1/package.json > attempts'
run 'grep -v "^  refused" attempts | grep .'

title "Paris dies; the others go on; Paris comes back"
run 'keyferry-dev stop eu-paris-1 --kill'
run 'keyferry encrypt $key -c env=prod --region us-east-1 < salaries > meanwhile.kf'
run 'keyferry decrypt -c env=prod --region ap-tokyo-1 < meanwhile.kf > meanwhile.tokyo'
run 'same salaries meanwhile.tokyo'
run 'keyferry-dev start eu-paris-1'
run 'keyferry decrypt -c env=prod --region eu-paris-1 < meanwhile.kf > meanwhile.paris'
run 'same salaries meanwhile.paris'
run 'keyferry key replicas payroll'
await 'keyferry-dev status >status 2>&1' # the others try again every few seconds
run 'keyferry-dev status'

title "Done in $(($(date +%s) - begin)) seconds"
