#!/usr/bin/env bash
# Compiles to a library first, then links that to one WebAssembly file.
set -euo pipefail
compiler=$(command -v kotlinc-wasm)
compiler=$(dirname "$(readlink -f "$compiler")")/..

compile() {
  kotlinc-wasm -nowarn -Xwasm-target=wasm-wasi -ir-output-dir build -ir-output-name plugin \
    -libraries "$compiler/lib/kotlin-stdlib-wasm-wasi.klib" "$@"
}

rm -rf build
compile src/*.kt
compile -Xir-produce-js -Xir-dce -Xinclude=build/plugin.klib -Xwasm-use-traps-instead-of-exceptions
