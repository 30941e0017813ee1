# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by ./demo and ./check: makes sure that the packages are there that they need.

# Whether what a Debian package is wanted for is there, wherever it came from.
cinch_have() {
    case $1 in
    cmake | make | git) command -v "$1" ;;
    g++) command -v c++ || command -v g++ || command -v clang++ ;;
    gcc) command -v cc || command -v gcc || command -v clang ;;
    pkg-config) command -v pkg-config ;;
    libc6-dev) [ -e /usr/include/stdio.h ] ;;
    libsodium-dev) command -v pkg-config && pkg-config --exists libsodium ;;
    libexpat1-dev) command -v pkg-config && pkg-config --exists expat ;;
    libjansson-dev) command -v pkg-config && pkg-config --exists jansson ;;
    libhwloc-dev) command -v pkg-config && pkg-config --exists hwloc ;;
    libibverbs-dev) command -v pkg-config && pkg-config --exists libibverbs ;;
    check) command -v pkg-config && pkg-config --exists check ;;
    *) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1")" = installed ] ;;
    esac >/dev/null 2>&1
}

# Runs a command as root: directly, or through sudo where that is allowed or somebody can answer it.
cinch_as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif ! command -v sudo >/dev/null 2>&1; then
        return 1
    elif sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; then
        sudo "$@"
    else
        return 1
    fi
}

# cinch_setup PACKAGES...: installs what is missing, as root or through sudo. Where that cannot be,
# prints the command that does it and ends the calling script with status 2.
cinch_setup() {
    local package missing=()
    for package in "$@"; do
        cinch_have "$package" || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return 0

    echo "Packages that are missing: ${missing[*]}"
    if command -v apt-get >/dev/null 2>&1 &&
        cinch_as_root apt-get -q -o DPkg::Lock::Timeout=300 update &&
        cinch_as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends "${missing[@]}"; then
        return 0
    fi
    echo "They could not be installed from here. This command does it on Debian and Ubuntu:" >&2
    echo "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 2
}
