#!/usr/bin/env bash
# Makes the vectors of timestamps anew with OpenSSL: an authority with RSA keys, as most public ones have.
#
#   bash timestamps.sh FOLDER
set -euo pipefail
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/openssl.cnf" <<'CNF'
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[signer]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
serial = $ENV::work/serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
CNF
export work
# issue NAME ISSUER EXTENSIONS
issue() {
  openssl req -new -newkey rsa:2048 -nodes -keyout "$work/$1.key" -subj "/CN=affix test $1" -out "$work/$1.csr" 2>/dev/null
  openssl x509 -req -in "$work/$1.csr" -CA "$work/$2.crt" -CAkey "$work/$2.key" -CAcreateserial -days 36500 \
    -extfile "$work/openssl.cnf" -extensions "$3" -out "$work/$1.crt" 2>/dev/null
}
for root in root stranger; do
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/$root.key" -subj "/CN=affix test $root" -days 36500 \
    -config "$work/openssl.cnf" -extensions authority -out "$work/$root.crt" 2>/dev/null
done
issue intermediate root authority
issue signer intermediate signer
echo 01 >"$work/serial"
printf signature >"$work/signature"
# token NAME SIGNER HASH
token() {
  openssl ts -query -data "$work/signature" "-$3" -cert -no_nonce -out "$work/query" 2>/dev/null
  openssl ts -reply -config "$work/openssl.cnf" -section tsa -queryfile "$work/query" -signer "$work/$2.crt" -inkey "$work/$2.key" \
    -chain "$work/intermediate.crt" -token_out -out "$1.der" 2>/dev/null
}
token sha256 signer sha256
token sha384 signer sha384
token sha512 signer sha512
cp "$work/root.crt" "$work/stranger.crt" .
