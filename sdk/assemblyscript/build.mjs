#!/usr/bin/env node
// Makes a plugin of a module that registers one:
//
//     node walmill/build.mjs src/plugin.ts build/plugin.wasm
//
// The compiler is taken from the project that this is run in. What it makes is a core module, which
// walmill takes as it is once the functions have the names that the interface gives them.

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [source = "src/plugin.ts", output = "build/plugin.wasm"] = process.argv.slice(2);
const build = dirname(output);

/** The names that the interface gives to the functions of world.ts. */
const NAMES = {
  lifecycle_describe: "walmill:plugin/lifecycle@0.1.0#describe",
  lifecycle_init: "walmill:plugin/lifecycle@0.1.0#init",
  transform_on_relation: "walmill:plugin/transform@0.1.0#on-relation",
  transform_process: "walmill:plugin/transform@0.1.0#process",
};

async function entry() {
  const { name, version = "0.0.0" } = JSON.parse(await readFile("package.json", "utf8"));
  const plugin = relative(build, source.replace(/\.ts$/, ""));
  const functions = [...Object.keys(NAMES), "post", "cabi_realloc"].join(", ");
  return `import ${JSON.stringify(plugin)};
import { named } from "walmill/world";
export { ${functions} } from "walmill/world";
named(${JSON.stringify(name)}, ${JSON.stringify(version)});
`;
}

/** A number as WebAssembly writes it, and reads it: seven bits a byte. */
function leb(number) {
  return number < 128 ? [number] : [(number % 128) | 128, ...leb(Math.floor(number / 128))];
}
function unleb(bytes, at) {
  const [low, more] = [bytes[at] & 127, bytes[at] & 128];
  if (!more) return [low, at + 1];
  const [high, end] = unleb(bytes, at + 1);
  return [low + high * 128, end];
}

/** The exports, `[name, kind and index]` each, with the interface's names. */
function renamed(exports) {
  const post = exports.find(([name]) => name === "post")[1];
  const named = exports.filter(([name]) => name !== "post").map(([name, what]) => [NAMES[name] ?? name, what]);
  return [...named, ...Object.values(NAMES).map((name) => [`cabi_post_${name}`, post])];
}

/** A section's exports as they are read, and as they are written. */
function readExports(bytes) {
  let [count, at] = unleb(bytes, 0);
  return Array.from({ length: count }, () => {
    const [length, start] = unleb(bytes, at);
    const name = new TextDecoder().decode(bytes.subarray(start, start + length));
    [, at] = unleb(bytes, start + length + 1);
    return [name, bytes.subarray(start + length, at)];
  });
}
function writeExports(exports) {
  const one = ([name, what]) => [...leb(name.length), ...new TextEncoder().encode(name), ...what];
  return [...leb(exports.length), ...exports.flatMap(one)];
}

/** The module with its exports renamed: section 7 is theirs. */
function withNames(module) {
  const parts = [module.subarray(0, 8)];
  for (let at = 8; at < module.length; ) {
    const [size, start] = unleb(module, at + 1);
    if (module[at] === 7) {
      const section = writeExports(renamed(readExports(module.subarray(start, start + size))));
      parts.push(Uint8Array.from([7, ...leb(section.length), ...section]));
    } else {
      parts.push(module.subarray(at, start + size));
    }
    at = start + size;
  }
  return Buffer.concat(parts);
}

await mkdir(build, { recursive: true });
await writeFile(resolve(build, "entry.ts"), await entry());
const compiler = pathToFileURL(resolve("node_modules/assemblyscript/dist/asc.js")).href;
const { default: asc } = await import(compiler);
const core = resolve(build, "core.wasm");
const { error, stderr } = await asc.main([
  relative(".", resolve(build, "entry.ts")),
  ...["--outFile", relative(".", core)],
  ...["--runtime", "minimal", "--exportStart", "_initialize", "--use", "abort=", "-O3"],
]);
process.stderr.write(stderr.toString());
if (error) process.exit(1);
// walmill watches the file, so it appears whole.
await writeFile(`${output}.new`, withNames(await readFile(core)));
await rename(`${output}.new`, output);
