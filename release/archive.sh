#!/usr/bin/env bash
# Packs a binary for this machine's platform into FOLDER/affix-VERSION-OS-ARCH.tar.gz and prints the path. The archive also has the licence,
# the manual pages and the completion scripts, which the binary prints itself. The same input gives the same archive.
#
#   release/archive.sh BINARY FOLDER
#
# SOURCE_DATE_EPOCH  the time of all files; default: that of the last commit
set -euo pipefail
binary=$1 folder=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}

case $(uname -s) in
  Linux) os=linux ;;
  Darwin) os=darwin ;;
  *) echo "archive.sh: no platform for $(uname -s)" >&2; exit 1 ;;
esac
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) echo "archive.sh: no platform for $(uname -m)" >&2; exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/completions" "$work/man" "$folder"
install -m 0755 "$binary" "$work/affix"
install -m 0644 "$root/LICENSE" "$work/LICENSE"
install -m 0755 "$root/release/kubectl_complete-affix" "$work/completions/kubectl_complete-affix"
"$work/affix" man "$work/man"
"$work/affix" completion bash >"$work/completions/affix.bash"
"$work/affix" completion zsh >"$work/completions/_affix"
"$work/affix" completion fish >"$work/completions/affix.fish"

version=$("$work/affix" --version)
archive=$(cd "$folder" && pwd)/affix-${version#affix }-$os-$arch.tar.gz
# GNU tar has the flags for a reproducible archive. macOS calls it gtar.
tar=$(command -v gtar || command -v tar)
chmod -R u=rwX,go=rX "$work"
"$tar" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu -C "$work" -cf - \
  LICENSE affix completions man | gzip -9 -n >"$archive"
echo "$archive"
