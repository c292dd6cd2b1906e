// Write walmill plugins in JavaScript: see index.d.ts, which has the words, and README.md.

export { plugin } from "./plugin.js";
export { absent, unchanged } from "./cell.js";
export { computed, fixed, input } from "./table.js";
export { anything, boolean, integer, number, text, texts } from "./settings.js";
export { clock, counter, gauge, kv, log } from "./host.js";

export const pass = 0;
export const drop = 1;
