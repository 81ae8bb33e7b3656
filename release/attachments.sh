#!/bin/sh
# Prints the resources for `affix attach -f -` that a release attaches to its image or chart: a cosign signature of the index and each
# platform, and the SBOM as a signed statement if a file is given.
#
#   COSIGN_KEY=… COSIGN_PASSWORD=… release/attachments.sh REGISTRY/REPOSITORY@DIGEST [SBOM.cdx.json]
#
# INSECURE=true: the registry speaks plain HTTP.
set -eu
image=$1 sbom=${2:-}
: "${COSIGN_KEY:?the key, as cosign generate-key-pair writes it}" "${COSIGN_PASSWORD:?its password}"

# Indents text for a YAML block.
block() { sed 's/^/    /'; }

cat <<EOF
apiVersion: v1
kind: Secret
metadata: {name: release-key}
stringData:
  cosign.password: |-
$(printf '%s' "$COSIGN_PASSWORD" | block)
  cosign.key: |
$(printf '%s\n' "$COSIGN_KEY" | block)
---
apiVersion: affix.dev/v1alpha1
kind: ImageAttachment
metadata: {name: signature}
spec:
  image: $image
  insecure: ${INSECURE:-false}
  signature:
    cosign: {keySecretRef: {name: release-key}}
EOF
[ -n "$sbom" ] || exit 0
cat <<EOF
---
apiVersion: v1
kind: ConfigMap
metadata: {name: bill-of-materials}
data:
  affix.cdx.json: |
$(block <"$sbom")
---
apiVersion: affix.dev/v1alpha1
kind: ImageAttachment
metadata: {name: bill-of-materials}
spec:
  image: $image
  insecure: ${INSECURE:-false}
  attestation:
    predicateType: cyclonedx
    predicates:
    - valueFrom: {configMapKeyRef: {name: bill-of-materials, key: affix.cdx.json}}
    cosign: {keySecretRef: {name: release-key}}
EOF
