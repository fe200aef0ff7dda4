#!/usr/bin/env bash
# debian-toolchain.sh PREFIX
#
# Makes a Rust that compiles for wasm32-wasip2 out of Debian's packages, for
# machines on which rustup cannot fetch that target. Needs no root, and leaves
# the system as it is: everything goes below PREFIX, and the result is the
# command PREFIX/bin/rustc.
#
# Debian's rustc-web is a current compiler with its sources, but without a
# standard library for this target. So that one is built here, and linked with
# the C library of the package wasi-libc.
#
# Run by `cargo xtask setup`, which sets
#   CARGO         the cargo that builds the library
#   RUST_SYSROOT  the sysroot of the Rust in use: its linkers serve here too
set -euo pipefail

target=wasm32-wasip2
# Suites in which to look for wasi-libc, the first that links is taken. Stable
# releases may have one that is too old for the library.
libc_suites="sid trixie"

prefix=$(mkdir -p "$1" && cd "$1" && pwd)
work=$prefix/work
root=$prefix/root
here=$(cd "$(dirname "$0")" && pwd)

say() { printf '  %s\n' "$*" >&2; }
fail() { printf '  %s\n' "$*" >&2; exit 1; }

# ---------------------------------------------------------------- apt, apart

# The mirror from which this machine gets a suite, by apt's own settings.
mirror_of() {
    apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite { print $2; exit }'
}

# use_suite SUITE MIRROR: from now on apt_ knows this suite and nothing else.
# It has lists, a cache and a status of its own.
use_suite() {
    local dir=$work/apt/$1
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    : > "$dir/status"
    cat > "$dir/suite.sources" <<EOF
Types: deb
URIs: $2
Suites: $1
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
    apt_options=(
        -qq
        -o "Dir::Etc::sourcelist=$dir/suite.sources" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "Dir::State=$dir" -o "Dir::State::status=$dir/status" -o "Dir::Cache=$dir/cache"
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3
    )
    timeout 300 apt-get "${apt_options[@]}" update
}

# fetch DIR PACKAGE...: downloads packages and unpacks them into DIR.
fetch() {
    local dir=$1 debs package
    shift
    mkdir -p "$dir"
    for package in "$@"; do
        debs=$(mktemp -d "$work/debs.XXXXXX")
        (cd "$debs" && timeout 900 apt-get "${apt_options[@]}" download "$package")
        dpkg-deb --extract "$debs"/*.deb "$dir"
        rm -r "$debs"
    done
}

# depends PACKAGE PATTERN: the first dependency whose name matches.
depends() {
    apt-cache "${apt_options[@]}" depends "$1" | sed -n 's/^ *|\{0,1\}Depends: <\{0,1\}\([^>]*\)>\{0,1\}$/\1/p' |
        grep -m1 -E "$2" || fail "the package $1 depends on nothing like $2"
}

# ------------------------------------------------------------------ compiler

compiler() {
    local std llvm host linkers linker
    say "fetching Debian's rustc-web and its sources (about 140 MB)"
    use_suite "$release-security" "$security"
    std=$(depends libstd-rust-web-dev '^libstd-rust-web-[0-9.]+$')
    llvm=$(depends "$std" '^libllvm[0-9]+')
    rm -rf "$root"
    fetch "$root" rustc-web libstd-rust-web-dev rust-web-src "$std" "$llvm"

    # It finds its libraries by this path, and its sysroot from them.
    mkdir -p "$prefix/bin"
    cat > "$prefix/bin/rustc" <<EOF
#!/bin/sh
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$root/usr/bin/rustc" "\$@"
EOF
    chmod +x "$prefix/bin/rustc"
    say "$("$prefix/bin/rustc" --version)"

    # The linkers for WebAssembly come with every official Rust.
    host=$("$prefix/bin/rustc" -vV | sed -n 's/^host: //p')
    linkers=$RUST_SYSROOT/lib/rustlib/$host/bin
    [ -x "$linkers/wasm-component-ld" ] ||
        fail "there is no wasm-component-ld in $linkers; install Rust by rustup"
    mkdir -p "$root/usr/lib/rustlib/$host/bin"
    for linker in rust-lld gcc-ld wasm-component-ld; do
        ln -sfn "$linkers/$linker" "$root/usr/lib/rustlib/$host/bin/$linker"
    done
}

# ---------------------------------------------------------- standard library

standard_library() {
    local sources commit
    say "building its standard library for $target (some minutes)"
    sources=$(echo "$root"/usr/src/rustc-*/library)
    commit=$("$prefix/bin/rustc" -vV | sed -n 's/^commit-hash: //p')
    # The switches are those of Rust's own build: the library uses unstable
    # features, and its crates are marked as private to the compiler.
    (
        cd "$sources" &&
        env -u RUSTUP_TOOLCHAIN RUSTC="$prefix/bin/rustc" RUSTC_BOOTSTRAP=1 \
            CARGO_TARGET_DIR="$work/std" CARGO_INCREMENTAL=0 \
            RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes --remap-path-prefix=$sources=/rustc/$commit/library" \
            "$CARGO" build --locked --package sysroot --release --target "$target" \
            2> "$work/std.log"
    ) || {
        tail -n 20 "$work/std.log" >&2
        fail "the standard library does not compile"
    }
    libraries=$root/usr/lib/rustlib/$target/lib
    mkdir -p "$libraries/self-contained"
    cp "$work/std/$target/release/deps"/*.rlib "$libraries/"
}

# links: whether a program that needs much of the library becomes a component.
links() {
    local magic
    rm -f "$work/smoke.wasm"
    "$prefix/bin/rustc" --edition 2024 --crate-type cdylib --target "$target" -O \
        "$here/smoke.rs" -o "$work/smoke.wasm" 2> "$work/smoke.log" || return 1
    magic=$(od -An -tx1 -N8 "$work/smoke.wasm" | tr -d ' ')
    [ "$magic" = 0061736d0d000100 ]
}

c_library() {
    local suite libc objects
    for suite in $libc_suites; do
        say "trying the wasi-libc of Debian $suite"
        libc=$work/libc-$suite
        use_suite "$suite" "$mirror" && fetch "$libc" wasi-libc || continue
        objects=$libc/usr/lib/$target
        [ -d "$objects" ] || objects=$libc/usr/lib/wasm32-wasi
        cp "$objects"/{crt1-command.o,crt1-reactor.o,libc.a} "$libraries/self-contained/"
        # Some versions keep the stubs of threads apart; the library wants them.
        if [ -e "$objects/libwasi-emulated-pthread.a" ]; then
            (mkdir -p "$libc/stubs" && cd "$libc/stubs" &&
                ar x "$objects/libwasi-emulated-pthread.a" &&
                ar q "$libraries/self-contained/libc.a" ./*.o)
        fi
        links && return
    done
    tail -n 8 "$work/smoke.log" | cut -c1-300 >&2 || true
    fail "no wasi-libc of Debian's ($libc_suites) fits this library"
}

# ---------------------------------------------------------------------- main

command -v apt-get > /dev/null || fail "this machine has no apt-get"
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
security=$(mirror_of "$release-security")
mirror=$(mirror_of "$release")
[ -n "$security" ] && [ -n "$mirror" ] ||
    fail "apt knows no mirror of '$release' and '$release-security'; is this Debian, and was apt-get update run?"

rm -rf "$work"
mkdir -p "$work"
compiler
standard_library
c_library
rm -rf "$work" "$root/usr/src" "$root/usr/share" "$root/usr/lib/rustlib/src"
