#!/bin/sh
# Makes the vectors of this folder again with the real tools. See README.md.
set -eu
cd "$(dirname "$0")"
for tool in cosign oras ociregistry openssl go; do
    command -v "$tool" >/dev/null 2>&1 || { echo "again.sh: $tool is not on the PATH" >&2; exit 1; }
done
export COSIGN_PASSWORD=affix COSIGN_YES=true
here=$PWD
scratch=$(mktemp -d)
registry_pid=
trap 'test -z "$registry_pid" || kill "$registry_pid"; rm -rf "$scratch"' EXIT
rm -rf cosign notary timestamps
mkdir cosign timestamps
bash timestamps.sh timestamps

: >"$scratch/registry"
ociregistry >"$scratch/registry" 2>/dev/null &
registry_pid=$!
tries=0
until grep -q listening "$scratch/registry"; do
    tries=$((tries + 1))
    test "$tries" -lt 100 || { echo "again.sh: the registry does not start" >&2; exit 1; }
    sleep 0.1
done
image=$(sed -n 's/^listening on //p' "$scratch/registry")/app

# The subject is always the same image.
cd "$scratch"
printf '{}' >empty
printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}' >config
digest() { printf 'sha256:%s' "$(sha256sum "$1" | cut -d' ' -f1)"; }
size() { wc -c <"$1" | tr -d ' '; }
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
    "$(digest config)" "$(size config)" "$(digest empty)" "$(size empty)" >subject.json
for blob in empty config; do
    oras blob push --plain-http "$image@$(digest $blob)" $blob >/dev/null
done
subject=$(digest subject.json)
oras manifest push --plain-http "$image@$subject" subject.json >/dev/null
cp subject.json "$here/subject.json"

# Keys: one that cosign generated, and others that it imported, beside what they were imported from.
cosign generate-key-pair --output-key-prefix generated 2>/dev/null
openssl genpkey -algorithm ed25519 -out ed25519.pem
openssl ecparam -name prime256v1 -genkey -out p256.sec1.pem
openssl pkcs8 -topk8 -nocrypt -in p256.sec1.pem -out p256.pem
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem 2>/dev/null
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2560 -out rsa-2560.pem 2>/dev/null
openssl genrsa -traditional -out rsa-3072.pkcs1.pem 3072 2>/dev/null
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out rsa-4096.pem 2>/dev/null
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem
openssl ec -in p384.pem -out p384.sec1.pem 2>/dev/null
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.pem
openssl pkcs8 -topk8 -in p256.pem -passout pass:affix -out p256.openssl.pem
for key in ed25519 p256 p384.sec1 p521 rsa rsa-3072.pkcs1 rsa-4096; do
    cosign import-key-pair --key $key.pem --output-key-prefix "${key%%.*}" 2>/dev/null
done
cp ./*.key ./*.pub ./*.pem "$here/cosign"

# Signatures: as files, and as attached, with and without annotations.
quiet() { "$@" >log 2>&1 || { cat log >&2; exit 1; }; }
sign="cosign sign --allow-http-registry --use-signing-config=false --tlog-upload=false"
quiet $sign --key generated.key --upload=false --bundle generated.bundle.json "$image@$subject"
quiet $sign --key ed25519.key --upload=false --bundle ed25519ph.bundle.json "$image@$subject"
for key in p384 p521 rsa rsa-4096; do
    quiet $sign --key $key.key --upload=false --bundle $key.bundle.json "$image@$subject"
done
quiet $sign --key generated.key -a who=me -a env=prod "$image@$subject"
referrer=$(oras discover --plain-http --format go-template='{{range .referrers}}{{.digest}}{{end}}' "$image@$subject")
oras manifest fetch --plain-http "$image@$referrer" >annotated.manifest.json
layer=$(sed -n 's/.*"layers":\[{[^}]*"digest":"\([^"]*\)".*/\1/p' annotated.manifest.json)
oras blob fetch --plain-http --output annotated.bundle.json "$image@$layer" >/dev/null

# A statement with a predicate.
cp "$here/vex.json" .
quiet cosign attest --allow-http-registry --use-signing-config=false --tlog-upload=false --key generated.key --type openvex --predicate vex.json \
    "$image@$subject"
is_statement='{{range .referrers}}{{if eq (index .annotations "dev.sigstore.bundle.predicateType") "https://openvex.dev/ns"}}{{.digest}}{{end}}{{end}}'
referrer=$(oras discover --plain-http --format go-template="$is_statement" "$image@$subject")
oras manifest fetch --plain-http "$image@$referrer" >statement.manifest.json
layer=$(sed -n 's/.*"layers":\[{[^}]*"digest":"\([^"]*\)".*/\1/p' statement.manifest.json)
oras blob fetch --plain-http --output statement.bundle.json "$image@$layer" >/dev/null

# Files that name an image in other ways.
printf 'a blob' >blob
quiet cosign sign-blob --use-signing-config=false --tlog-upload=false --key generated.key --bundle blob.bundle.json blob
printf '{}' >predicate.json
quiet cosign attest-blob --use-signing-config=false --tlog-upload=false --new-bundle-format=false --key generated.key --predicate predicate.json \
    --output-signature attestation.dsse.json subject.json
cosign generate --allow-http-registry "$image@$subject" >simple-signing.json 2>/dev/null
cp ./*.bundle.json annotated.manifest.json statement.manifest.json attestation.dsse.json simple-signing.json blob "$here/cosign"

cd "$here/notation"
GODEBUG=rsa1024min=0 go run . "$subject" "$(size ../subject.json)" "$here/notary"
