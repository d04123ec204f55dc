#!/bin/bash
# Computes vectors.json with openssl and nothing of this repository:
#   keyops/material/testdata/vectors.sh > keyops/material/testdata/vectors.json
set -euo pipefail

hex() { printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; }
raw() { printf "$(printf '%s' "$1" | sed 's/../\\x&/g')"; }
sha256() { raw "$1" | openssl dgst -sha256 -r | cut -c1-64; }
field() { printf '%08x%s' $((${#1} / 2)) "$1"; }
id() { sha256 "$(field "$(hex keyferry/material/v1)")$(field "$(hex "$1")")$(field "$(hex "$2")")$(field "$3")"; }
entry() { # name spec keyID secret input check
	printf '%s{"name": "%s", "spec": "%s", "keyID": "%s", "secret": "%s",\n  "input": "%s",\n  "check": "%s",\n  "id": "%s"}' \
		"$sep" "$1" "$2" "$3" "$4" "$5" "$6" "$(id "$2" "$3" "$6")"
	sep=$',\n '
}

aes() { # name keyID secret
	h=$(sha256 "$(hex "keyferry/check/v1$2")")
	blocks="${h:0:24}00000000${h:24:24}00000000"
	check=$(raw "$blocks" | openssl enc -aes-256-ecb -nopad -K "$3" | od -An -v -tx1 | tr -d ' \n')
	entry "$1" SYMMETRIC_DEFAULT "$2" "$3" "$blocks" "$check"
}

mac() { # name spec digest keyID secret
	check=$(printf '%s' "keyferry/check/v1$4" | openssl dgst "-$3" -mac HMAC -macopt "hexkey:$5" -r | cut -d' ' -f1)
	entry "$1" "$2" "$4" "$5" "$(hex "keyferry/check/v1$4")" "$check"
}

pair() { # name spec keyID pem
	check=$(printf '%s' "$4" | openssl pkey -pubin -outform DER 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
	entry "$1" "$2" "$3" "" "" "$check"
}

k1=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
k2=ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff
single=0f8fad5b-d9cb-469f-a165-70867728950e
multi=mrk-1234abcd12ab34cd56ef1234567890ab
p256='-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----'

printf '['
sep=''
aes 'aes, single-Region key' $single $k1
aes 'aes, multi-Region key' $multi $k1
aes 'aes, other material of the same key' $multi $k2
mac 'hmac-256, multi-Region key' HMAC_256 sha256 $multi $k1
mac 'hmac-224' HMAC_224 sha224 $single $k1
mac 'hmac-384' HMAC_384 sha384 $single $k1$k2
mac 'hmac-512' HMAC_512 sha512 $single $k1$k2
pair 'p-256 base point' ECC_NIST_P256 $multi "$p256"
printf ']\n'
