// How values lie in memory where walmill and the plugin hand them to each other: the canonical ABI.

/** Room that lives until the call is over: nothing is collected before. */
export function room(size: usize): usize {
  return __new(size, idof<ArrayBuffer>());
}

export function u32At(at: usize, offset: usize): u32 {
  return load<u32>(at + offset);
}

/** A text: its place, then its length in bytes of UTF-8. */
export function readText(at: usize): string {
  return decode(load<usize>(at), load<u32>(at, 4));
}

export function decode(start: usize, length: u32): string {
  return length == 0 ? "" : String.UTF8.decodeUnsafe(start, length);
}

export function writeText(at: usize, text: string): void {
  const bytes = String.UTF8.encode(text);
  writeList(at, changetype<usize>(bytes), bytes.byteLength);
}

/** A list: its place, then how many. */
export function writeList(at: usize, start: usize, length: u32): void {
  store<usize>(at, start);
  store<u32>(at, length, 4);
}

export function writeTexts(at: usize, texts: string[]): void {
  const list = room(8 * <usize>texts.length);
  for (let i = 0; i < texts.length; i++) writeText(list + 8 * <usize>i, unchecked(texts[i]));
  writeList(at, list, texts.length);
}

export function writeArray<T>(at: usize, values: T[]): void {
  writeList(at, values.dataStart, values.length);
}
