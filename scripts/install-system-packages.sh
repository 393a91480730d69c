#!/usr/bin/env bash
# Installs what `make bench` compares with and measures by: etcd, the load generators wrk and h2load, and a C compiler
# for what h2load needs to send random keys.
# Nothing else needs these. Debian or Ubuntu; run as root or with sudo.
set -euo pipefail
packages=(etcd-server etcd-client wrk nghttp2-client gcc libc6-dev)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "Already installed: ${packages[*]}"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "apt-get was not found. Install these by hand: ${missing[*]}" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
# RUNLEVEL=1 keeps the package from starting an etcd service of its own, which would disturb every measurement.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
