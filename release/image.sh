#!/usr/bin/env bash
# Builds the image of the Dockerfile for this machine's platform, without a container engine, and pushes it. `make image` calls it.
#
#   IMAGE     where to push: HOST/REPOSITORY:TAG
#   BASE      the base image: NAME@sha256:DIGEST, an OCI layout, or a folder with a root file system
#   BINARY    the binary, default target/release/affix
#   CRANE     crane, default that of PATH
#   INSECURE  set it for a registry without TLS
#   VERSION, REVISION, SOURCE, SOURCE_DATE_EPOCH as in the Dockerfile; the defaults are those of Cargo.toml and git
#
# The labels, user, entry point and ports are read from the Dockerfile. The same input gives the same image. Prints the image by digest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "image.sh: $*" >&2; exit 1; }

[ -n "${IMAGE:-}" ] || fail 'no IMAGE: set it to HOST/REPOSITORY:TAG'
[ -n "${BASE:-}" ] || fail 'no BASE: set it to NAME@sha256:DIGEST, an OCI layout, or a folder with a root file system'
crane=(${CRANE:-crane})
[ -z "${INSECURE:-}" ] || crane+=(--insecure)
binary=${BINARY:-target/release/affix}
[ -x "$binary" ] || fail "no binary at $binary: run cargo build --release --bin affix"
VERSION=${VERSION:-$(sed -n 's/^ARG VERSION=//p' Dockerfile)}
REVISION=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
SOURCE=${SOURCE:-$(git config --get remote.origin.url 2>/dev/null || echo unknown)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
CREATED=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

case $(uname -m) in
  x86_64) platform=linux/amd64 ;;
  aarch64) platform=linux/arm64 ;;
  *) fail "no platform for $(uname -m)" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack FOLDER FILE: packs a folder reproducibly.
pack() {
  tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf "$2" .
}

install -D -m 0755 "$binary" "$work/layer/usr/local/bin/affix"
install -D -m 0644 LICENSE "$work/layer/usr/share/doc/affix/LICENSE"
find "$work/layer" -type d -exec chmod 0755 {} +
pack "$work/layer" "$work/layer.tar"

append=(--new_layer "$work/layer.tar" --new_tag "$IMAGE")
change=(--set-platform "$platform")
name=$BASE
if [ -f "$BASE/oci-layout" ]; then
  "${crane[@]}" push "$BASE" "$IMAGE" >/dev/null
  append+=(--base "$IMAGE")
  name=$(basename "$BASE")
elif [ -d "$BASE" ]; then
  # Packed with its own owners and modes. A base image sets these variables itself.
  tar --sort=name --mtime="@$epoch" --numeric-owner --format=gnu -C "$BASE" -cf "$work/base.tar" .
  append=(--oci-empty-base --new_layer "$work/base.tar" "${append[@]}")
  change+=(--env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
  change+=(--env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
  name=scratch
elif [[ $BASE =~ @sha256:[0-9a-f]{64}$ ]]; then
  append+=(--base "$BASE")
else
  fail "BASE is neither a folder nor an image by digest: $BASE"
fi
"${crane[@]}" append --platform "$platform" "${append[@]}" >/dev/null

# LABEL lines of the last stage, with their variables.
BASE=$name
while IFS= read -r label; do
  # crane reads a list of labels, in which quotes protect commas.
  change+=(--label "\"$(eval "printf %s \"$label\"")\"")
done < <(sed -n '/^LABEL /,/[^\\]$/p' Dockerfile | sed -E 's/^LABEL |^ +//; s/ *\\$//; s/"//g')
change+=(--user "$(sed -n 's/^USER //p' Dockerfile)")
change+=(--entrypoint "$(sed -n 's/^ENTRYPOINT \["\(.*\)"\]/\1/p' Dockerfile)")
for port in $(sed -n 's/^EXPOSE //p' Dockerfile); do
  change+=(--exposed-ports "$port/tcp")
done
"${crane[@]}" mutate "$IMAGE" --tag "$IMAGE" "${change[@]}" >/dev/null
echo "${IMAGE%:*}@$("${crane[@]}" digest "$IMAGE")"
