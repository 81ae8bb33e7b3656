#!/usr/bin/env bash
# Prints the krew manifest of the plugin `kubectl affix` for archives of release/archive.sh.
#
#   release/krew.sh VERSION HOMEPAGE BASE_URL ARCHIVE…
#
# BASE_URL is the address of the folder from which users download the archives.
set -euo pipefail
version=$1 homepage=$2 base=$3
shift 3

cat <<EOF
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: affix
spec:
  version: v$version
  homepage: $homepage
  shortDescription: Attach signatures and end-of-life marks to images
  description: |
    Attaches end-of-life marks, signatures, signed statements and files to multi-platform images: to the index and to each platform
    manifest, as OCI 1.1 referrers. Shows the referrers of an image, plans changes without a write, and reports the resources of the
    operator affix in a cluster. Most commands need no cluster.
  caveats: |
    To complete arguments, put a program kubectl_complete-affix with these two lines on your PATH:
      #!/bin/sh
      exec kubectl affix __complete -- "\$@"
  platforms:
EOF
for archive in "$@"; do
  file=$(basename "$archive")
  platform=${file#"affix-$version-"} platform=${platform%.tar.gz}
  sum=$( (sha256sum "$archive" 2>/dev/null || shasum -a 256 "$archive") | cut -d ' ' -f 1)
  cat <<EOF
  - selector:
      matchLabels: {os: ${platform%-*}, arch: ${platform#*-}}
    uri: $base/$file
    sha256: $sum
    bin: affix
EOF
done
