#!/usr/bin/env node
// Makes a plugin of a module whose default export is `plugin({…})`:
//
//     node walmill/build.mjs src/plugin.js build/plugin.wasm
//
// esbuild puts everything into one module, without TypeScript's types; componentize-js puts that
// into an interpreter. Both are taken from the project that this is run in.

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [source = "src/plugin.js", output = "build/plugin.wasm"] = process.argv.slice(2);
const sdk = dirname(fileURLToPath(import.meta.url));

/** A tool among the project's packages. */
const tool = (path) => import(pathToFileURL(resolve("node_modules", path)).href);

/** The plugin and all that it imports as one module, and what it imports of walmill. */
async function bundle() {
  const { build } = await tool("esbuild/lib/main.js");
  const { name, version = "0.0.0" } = JSON.parse(await readFile("package.json", "utf8"));
  const { outputFiles, metafile } = await build({
    stdin: {
      contents: `import plugin from ${JSON.stringify(resolve(source))};
        export const { lifecycle, transform } = plugin;`,
      resolveDir: process.cwd(),
    },
    alias: { walmill: resolve(sdk, "index.js") },
    define: { WALMILL_NAME: JSON.stringify(name), WALMILL_VERSION: JSON.stringify(version) },
    external: ["walmill:*"],
    bundle: true,
    minifySyntax: true,
    format: "esm",
    target: "es2022",
    write: false,
    metafile: true,
    outfile: "plugin.js",
    logLevel: "error",
  });
  const imports = metafile.outputs["plugin.js"].imports.map(({ path }) => path);
  return { text: outputFiles[0].text, imports };
}

/** The interface's file: the project's own, or the one in walmill's repository. */
async function interfaces() {
  for (const folder of ["wit", resolve(sdk, "../../wit")]) {
    const text = await readFile(resolve(folder, "walmill.wit"), "utf8").catch(() => undefined);
    if (text !== undefined) return text;
  }
  throw new Error("wit/walmill.wit is missing: `walmill plugin new` writes it");
}

/**
 * A world with no more in it than the plugin imports: an operator has to grant some of what walmill
 * offers, and shouldn't be asked for what is not used.
 */
function world(imports) {
  const names = imports.map((path) => path.match(/^walmill:plugin\/([a-z-]+)@/)?.[1]);
  const lines = names.filter(Boolean).map((name) => `import ${name};`);
  return `world javascript { ${lines.join(" ")} export lifecycle; export transform; }\n`;
}

async function main() {
  const { componentize } = await tool("@bytecodealliance/componentize-js/src/componentize.js");
  const build = dirname(resolve(output));
  const { text, imports } = await bundle();
  await mkdir(resolve(build, "wit"), { recursive: true });
  await writeFile(resolve(build, "plugin.js"), text);
  await writeFile(resolve(build, "wit/walmill.wit"), (await interfaces()) + world(imports));
  const { component } = await componentize({
    sourcePath: resolve(build, "plugin.js"),
    witPath: resolve(build, "wit"),
    worldName: "javascript",
    // No clock but walmill's, no chance, no network: the same changes give the same answers.
    disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
  });
  // walmill watches the file, so it appears whole.
  await writeFile(`${output}.new`, component);
  await rename(`${output}.new`, output);
}

try {
  await main();
} catch (error) {
  // esbuild has told its own already.
  if (!error.errors) console.error(error.message);
  process.exit(1);
}
